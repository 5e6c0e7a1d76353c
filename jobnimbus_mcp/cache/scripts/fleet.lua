-- Who has an L1, and how far each has come.
-- KEYS  1 fleet, 2 log
-- Reply {last position of the log, {instance, registered, ...}}
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {last[1] and last[1][1] or '0-0', redis.call('HGETALL', KEYS[1])}
