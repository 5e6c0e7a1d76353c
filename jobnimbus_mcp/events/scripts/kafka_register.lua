-- These consumers exist.
-- KEYS  1 consumers
-- ARGV  the consumers
for i = 1, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], '1') end
return #ARGV
