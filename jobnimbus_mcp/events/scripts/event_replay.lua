-- Dead letters are due again, for consumers for which nothing has changed since they were looked at.
-- KEYS  1 hash of the event, 2 stream, 3 dead, 4.. what is due for the consumer and dead for it, ...
-- ARGV  1 event id, 2 now in ms, 3.. consumer, what became of it, what is to be noted instead, ...
-- Reply {consumer, ...}
local again = {}
for k = 4, #KEYS, 2 do
    local consumer, became, anew = unpack(ARGV, 3 * (k - 4) / 2 + 3, 3 * (k - 4) / 2 + 5)
    if redis.call('HGET', KEYS[1], 'c:' .. consumer) == became then
        redis.call('HSET', KEYS[1], 'c:' .. consumer, anew)
        redis.call('HINCRBY', KEYS[1], 'left', 1)
        redis.call('HINCRBY', KEYS[1], 'gone', -1)
        redis.call('ZADD', KEYS[k], ARGV[2], ARGV[1])
        redis.call('ZREM', KEYS[k + 1], ARGV[1])
        again[#again + 1] = consumer
    end
end
if #again > 0 then
    -- A new entry, since the groups are past the one it had; the other consumers pass it over.
    local found = redis.call('HMGET', KEYS[1], 'e', 'to', 'x')
    local entry = redis.call('XADD', KEYS[2], '*', 'id', ARGV[1], 'e', found[1], 'to', found[2], 'only',
        table.concat(again, ' '))
    redis.call('HSET', KEYS[1], 'x', (found[3] ~= '' and found[3] .. ' ' or '') .. entry)
    redis.call('ZREM', KEYS[3], ARGV[1])
end
return again
