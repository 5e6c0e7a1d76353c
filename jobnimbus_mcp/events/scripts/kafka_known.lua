-- KEYS  1 consumers
-- Reply {consumer, '1' or '0' retired, ...}
return redis.call('HGETALL', KEYS[1])
