-- Events that are for nobody go to the archive.
-- KEYS  1 live, 2 archive, 3 its index, 4 stream, 5.. hashes of the events
-- ARGV  1.. event id, its time in ms, ...
-- Reply how many
local filed = 0
for k = 5, #KEYS do
    local id, ms = ARGV[2 * k - 9], ARGV[2 * k - 8]
    if redis.call('HGET', KEYS[k], 'to') == '{}' then
        redis.call('XDEL', KEYS[4], redis.call('HGET', KEYS[k], 'x'))
        local place = redis.call('XADD', KEYS[2], '*', 'id', id, unpack(redis.call('HGETALL', KEYS[k])))
        redis.call('ZADD', KEYS[3], ms, id .. ':' .. place)
        redis.call('ZREM', KEYS[1], id)
        filed = filed + redis.call('UNLINK', KEYS[k])
    end
end
return filed
