-- Takes one token from a bucket shared by all replicas (generic cell rate algorithm), or none when the wait is too long.
--
-- KEYS[1]  when the bucket would be full again, microseconds of Redis's own clock
-- ARGV[1]  microseconds between two tokens
-- ARGV[2]  microseconds by which a burst may run ahead
-- ARGV[3]  longest wait that the caller accepts, microseconds
-- ARGV[4]  longest wait that any caller accepts, microseconds
-- returns  {1, wait, full} when a token was taken, {0, wait, full} when not; microseconds, full: until the bucket is full
local interval, ahead, patience, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local starts = tonumber(redis.call('GET', KEYS[1]) or now)
-- no caller can have reserved further than this, so the clock went back: another machine took over
if starts < now or starts > now + longest + ahead + interval then
  starts = now
end
local wait = math.max(0, math.ceil(starts - now - ahead))
if wait > patience then
  return {0, wait, math.ceil(starts - now)}
end
local full = starts + interval
redis.call('SET', KEYS[1], full, 'PX', math.ceil((full - now) / 1000) + 1)
return {1, wait, math.ceil(full - now)}
