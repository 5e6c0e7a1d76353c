-- The ids that the last sweep has found.
-- KEYS  1 ids
-- Reply compressed, or nothing
return redis.call('GET', KEYS[1])
