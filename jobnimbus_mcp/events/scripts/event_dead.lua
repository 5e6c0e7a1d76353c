-- The events that were given up the longest ago.
-- KEYS  1 dead
-- ARGV  1 before, ms, 2 most at once
-- Reply {id, ...}
return redis.call('ZRANGE', KEYS[1], '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
