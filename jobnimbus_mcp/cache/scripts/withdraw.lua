-- Takes the admission marker away, and moves the guard so that no fill under way brings it back.
-- KEYS  1 admission marker, 2 fill guard
-- ARGV  1 life of the guard in s
local had = redis.call('UNLINK', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local old = tonumber(redis.call('MGET', KEYS[2])[1] or '')
if old and old < 9000000000000000 and old + 1 > now then now = old + 1 end
if redis.pcall('SET', KEYS[2], string.format('%.0f', now), 'EX', ARGV[1]).err then redis.call('UNLINK', KEYS[2]) end
return had
