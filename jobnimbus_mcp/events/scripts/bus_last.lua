-- The latest message, for whoever begins to listen.
-- KEYS  1 bus
-- Reply its position, '0-0' without one
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return last[1] and last[1][1] or '0-0'
