-- Reads work and writes are taken.
-- KEYS  1 token
-- ARGV  1 a new token
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return 1
