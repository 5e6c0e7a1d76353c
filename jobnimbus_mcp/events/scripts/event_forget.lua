-- Forgets a dead event, unless it was replayed meanwhile.
-- KEYS  1 hash of the event, 2 live, 3 dead, 4.. dead for its consumers
-- ARGV  1 event id
-- Reply 1 forgotten, 0 not
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return 0 end
for k = 4, #KEYS do redis.call('ZREM', KEYS[k], ARGV[1]) end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('UNLINK', KEYS[1])
return 1
