-- Dead letters of an event are due again, and it is to be shipped again.
-- KEYS  1 event, 2 done, then due and dead events of each consumer
-- ARGV  1 event id, 2 now in ms, 3.. consumers
-- Reply {envelope, body, consumer, ...}; no consumer when it has no dead letter
local told = redis.call('HMGET', KEYS[1], 'e', 'b', 'x')
if not told[1] then return {'', ''} end
local reply, revived = {told[1], told[2]}, 0
for i = 3, #ARGV do
    local c = ARGV[i]
    local state = redis.call('HGET', KEYS[1], 's:' .. c)
    if state == 'x' then
        redis.call('HSET', KEYS[1], 's:' .. c, 'p', 'n:' .. c, 0, 'u:' .. c, ARGV[2])
        redis.call('HDEL', KEYS[1], 'r:' .. c, 'f:' .. c, 'h:' .. c)
        redis.call('ZADD', KEYS[2 * i - 3], ARGV[2], ARGV[1])
        redis.call('ZREM', KEYS[2 * i - 2], ARGV[1])
        revived = revived + 1
        reply[#reply + 1] = c
    elseif state == 'p' and told[3] == '0' then
        reply[#reply + 1] = c
    end
end
if revived > 0 then
    redis.call('HINCRBY', KEYS[1], 'left', revived)
    redis.call('HINCRBY', KEYS[1], 'dead', -revived)
    redis.call('HSET', KEYS[1], 'x', '0')
    redis.call('ZREM', KEYS[2], ARGV[1])
end
return reply
