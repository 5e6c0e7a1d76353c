-- Tells an L1 where the log stands, and notes how far it has come.
-- KEYS  1 epoch, 2 log, 3 fleet
-- ARGV  1 instance, 2 position it has applied, 3 '1' note it
-- Reply {epoch ('' none), last position}
if ARGV[3] == '1' then
    -- The first write, and one that needs no room: in a full store the few bytes below are then let through.
    redis.call('PERSIST', KEYS[3])
    local time = redis.call('TIME')
    local now = string.format('%.0f', time[1] * 1000000 + time[2])
    redis.call('HSETNX', KEYS[3], '_', now)
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. '|' .. now)
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {redis.call('MGET', KEYS[1])[1] or '', last[1] and last[1][1] or '0-0'}
