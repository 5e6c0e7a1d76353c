-- Does the store take a write.
-- KEYS  1 any key
-- ARGV  1 its life in ms
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
