-- Lasting sums.
-- KEYS  1 sums
-- Reply field, number, field, number, ...
return redis.call('HGETALL', KEYS[1])
