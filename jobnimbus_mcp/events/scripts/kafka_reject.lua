-- Something that could not be understood, for the trace alone.
-- KEYS  1 event, 2 index, 3 dead ones of the consumer that stands for it
-- ARGV  1 event id, 2 envelope, 3 body, 4 now in ms, 5 consumer, 6 reason
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local c = ARGV[5]
redis.call('HSET', KEYS[1], 'e', ARGV[2], 'b', ARGV[3], 'x', '1', 'left', 0, 'dead', 1, 's:' .. c, 'x', 'a:' .. c, 0,
    'u:' .. c, ARGV[4], 'f:' .. c, ARGV[4], 'r:' .. c, ARGV[6])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
return 1
