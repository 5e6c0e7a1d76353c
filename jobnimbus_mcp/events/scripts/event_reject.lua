-- Keeps what could not be understood, as dead from the start.
-- KEYS  1 hash of the event, 2 live, 3 dead
-- ARGV  1 event id, 2 its time in ms, 3 event, 4 body, 5 consumers, 6 now in ms, 7 field, 8 value
-- Reply 1 kept, 0 it is there already
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'e', ARGV[3], 'b', ARGV[4], 'to', ARGV[5], 'x', '', 'left', 1, 'gone', 1, 'rejected', '1',
    ARGV[7], ARGV[8])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[1])
return 1
