-- The rows of a bulk run.
-- KEYS  1 rows
-- Reply what is kept, or nil
return redis.call('GET', KEYS[1])
