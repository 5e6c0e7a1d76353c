-- Notes consumers, and tells of all that are known.
-- KEYS  1 consumers
-- ARGV  1.. consumers to be noted
-- Reply {consumer, '1', ...}
for _, name in ipairs(ARGV) do redis.call('HSET', KEYS[1], name, '1') end
return redis.call('HGETALL', KEYS[1])
