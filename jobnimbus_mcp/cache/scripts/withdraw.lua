-- Takes the admission marker away, moves the guard so that no fill under way brings it back, and tells so in the log.
-- The trace outlives the marker as long as an entry may, and tells a bearer that was once admitted from one that never
-- was.
-- KEYS  1 admission marker, 2 fill guard, 3 trace of the bearer, 4 epoch, 5 log
-- ARGV  1 life of the guard in s, 2 '1' leave the guard alone when the bearer was never admitted, 3 longest log,
--       4 what the log says in a tag's place
-- Reply 1 was admitted once, 0 never
local had = math.min(1, redis.call('UNLINK', KEYS[1], KEYS[3]))
if had == 0 and ARGV[2] == '1' then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local old = tonumber(redis.call('MGET', KEYS[2])[1] or '')
if old and old < 9000000000000000 and old + 1 > now then now = old + 1 end
if redis.pcall('SET', KEYS[2], string.format('%.0f', now), 'EX', ARGV[1]).err then redis.call('UNLINK', KEYS[2]) end
local last = redis.pcall('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)
local prev = last[1] and last[1][1] or '0-0'
local line = redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', ARGV[3], '*', 'tags', ARGV[4], 'prev', prev)
if type(line) == 'table' then redis.call('UNLINK', KEYS[4]) end
return had
