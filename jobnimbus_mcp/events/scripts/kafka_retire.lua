-- A consumer that no longer exists: what waits for it is dead, and it is marked when nothing waits any more.
-- KEYS  1 consumers, 2 its due events, 3 its dead ones, 4.. events
-- ARGV  1 consumer, 2 now in ms, 3 reason, 4.. event ids
-- Reply how many events are dead now
local c, dead = ARGV[1], 0
for i = 4, #KEYS do
    redis.call('ZREM', KEYS[2], ARGV[i])
    if redis.call('HGET', KEYS[i], 's:' .. c) == 'p' then
        redis.call('HSET', KEYS[i], 's:' .. c, 'x', 'f:' .. c, ARGV[2], 'r:' .. c, ARGV[3])
        redis.call('HDEL', KEYS[i], 'h:' .. c)
        redis.call('HINCRBY', KEYS[i], 'left', -1)
        redis.call('HINCRBY', KEYS[i], 'dead', 1)
        redis.call('ZADD', KEYS[3], ARGV[2], ARGV[i])
        dead = dead + 1
    end
end
if redis.call('ZCARD', KEYS[2]) == 0 then redis.call('HSET', KEYS[1], c, '0') end
return dead
