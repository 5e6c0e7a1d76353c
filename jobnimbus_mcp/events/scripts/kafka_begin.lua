-- An event is known from now on. Of one that is known already only what `adopt` names is added.
-- KEYS  1 event, 2 index, 3 done, 4 consumers, 5.. due events of each consumer
-- ARGV  1 event id, 2 envelope, 3 body, 4 now in ms, 5 '1' adopt: it is in the topic, then consumer, due at in ms, ...
-- Reply 0 new, 1 known and not shipped, 2 shipped
local shipped = redis.call('HGET', KEYS[1], 'x')
if shipped and ARGV[5] ~= '1' then return shipped == '1' and 2 or 1 end
if not shipped then
    redis.call('HSET', KEYS[1], 'e', ARGV[2], 'b', ARGV[3], 'x', ARGV[5], 'left', 0, 'dead', 0)
    redis.call('ZADD', KEYS[2], 0, ARGV[1])
end
local added = 0
for i = 6, #ARGV, 2 do
    local consumer, due = ARGV[i], ARGV[i + 1]
    redis.call('HSETNX', KEYS[4], consumer, '1')
    if redis.call('HSETNX', KEYS[1], 's:' .. consumer, 'p') == 1 then
        redis.call('HSET', KEYS[1], 'u:' .. consumer, due, 'n:' .. consumer, 0, 'a:' .. consumer, 0)
        redis.call('ZADD', KEYS[5 + (i - 6) / 2], due, ARGV[1])
        added = added + 1
    end
end
local left = redis.call('HINCRBY', KEYS[1], 'left', added)
if left > 0 then
    redis.call('ZREM', KEYS[3], ARGV[1])
elseif not shipped then
    redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
end
return 0
