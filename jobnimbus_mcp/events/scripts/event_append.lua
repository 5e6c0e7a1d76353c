-- Appends an event, unless it is there already or in the archive. What it leaves is what the cache's bump leaves.
-- KEYS  1 index of the archive, 2 hash of the event, 3 stream, 4.. sorted sets
-- ARGV  1 event id, 2 its time in ms, 3 event, 4 body, 5 consumers and when it is due for them, 6.. scores in the sets
-- Reply 1 new, 0 there already
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[2], 'BYSCORE')) do
    if string.sub(member, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then return 0 end
end
local entry = redis.call('XADD', KEYS[3], '*', 'id', ARGV[1], 'e', ARGV[3], 'to', ARGV[5])
redis.call('HSET', KEYS[2], 'e', ARGV[3], 'b', ARGV[4], 'to', ARGV[5], 'x', entry, 'left', #KEYS - 3)
for i = 4, #KEYS do redis.call('ZADD', KEYS[i], ARGV[i + 2], ARGV[1]) end
return 1
