-- Ids of events from before, the oldest first.
-- KEYS  1 done events, or those dead or due for one consumer
-- ARGV  1 before this ms, or '+inf', 2 how many to pass over, 3 most
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] == '+inf' and ARGV[1] or '(' .. ARGV[1], 'LIMIT', ARGV[2], ARGV[3])
