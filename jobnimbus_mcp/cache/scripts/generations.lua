-- Generations as they are.
-- KEYS  any
-- Reply their values, nil for one that is missing
return redis.call('MGET', unpack(KEYS))
