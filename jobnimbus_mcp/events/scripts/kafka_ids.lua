-- Ids of events, the newest first.
-- KEYS  1 index
-- ARGV  1 highest, 2 lowest, each as ZREVRANGEBYLEX takes it, 3 most
return redis.call('ZREVRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
