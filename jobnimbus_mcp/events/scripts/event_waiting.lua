-- The first events that are due for a consumer, or will be.
-- KEYS  1 what is due for it
-- ARGV  1 most
-- Reply {id, ...}
return redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)
