-- A worker leaves a consumer: its leases are free at once.
-- KEYS  1 owners
-- ARGV  1 worker, 2 consumer, 3 partitions
-- Reply how many leases it had
local gone = 0
for p = 0, tonumber(ARGV[3]) - 1 do
    local field = 'p:' .. p .. ':' .. ARGV[2]
    local token = string.match(redis.call('HGET', KEYS[1], field) or '', '^%d+|(.*)$')
    if token and string.sub(token, 1, #ARGV[1] + 1) == ARGV[1] .. '.' then
        gone = gone + redis.call('HDEL', KEYS[1], field)
    end
end
local till, names = string.match(redis.call('HGET', KEYS[1], 'w:' .. ARGV[1]) or '', '^(%d+)|(.*)$')
if till then
    local kept = {}
    for name in string.gmatch(names, '%S+') do
        if name ~= ARGV[2] then kept[#kept + 1] = name end
    end
    if #kept == 0 then
        redis.call('HDEL', KEYS[1], 'w:' .. ARGV[1])
    else
        redis.call('HSET', KEYS[1], 'w:' .. ARGV[1], till .. '|' .. table.concat(kept, ' '))
    end
end
return gone
