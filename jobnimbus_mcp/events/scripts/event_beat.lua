-- A worker says that it lives: keeps its leases, and takes its share of those that nobody has.
-- KEYS  1 owners, 2 consumers, 3.. streams of the partitions
-- ARGV  1 worker, 2 token of new leases, 3 life of a lease in ms, 4.. consumer, partitions it gives up ('025'), ...
-- Reply {{last entry of each stream}, {its share, token for each partition ('' not its own)} for each consumer}
-- A first write that needs no room: a full store refuses none after it.
redis.call('HDEL', KEYS[1], '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = string.format('%.0f|', now + tonumber(ARGV[3]))
local partitions = #KEYS - 2

local held, serving = {}, {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
    local till, told = string.match(flat[i + 1], '^(%d+)|(.*)$')
    if string.sub(flat[i], 1, 2) == 'p:' then
        held[flat[i]] = {tonumber(till), told}
    elseif tonumber(till) <= now then
        redis.call('HDEL', KEYS[1], flat[i])
    elseif flat[i] ~= 'w:' .. ARGV[1] then
        for name in string.gmatch(told, '%S+') do serving[name] = (serving[name] or 0) + 1 end
    end
end

local names = {}
for i = 4, #ARGV, 2 do
    names[#names + 1] = ARGV[i]
    redis.call('HSET', KEYS[2], ARGV[i], '1')
end
redis.call('HSET', KEYS[1], 'w:' .. ARGV[1], ends .. table.concat(names, ' '))
redis.call('PEXPIRE', KEYS[1], math.max(3600000, 2 * tonumber(ARGV[3])))

local reply = {{}}
for p = 1, partitions do
    local last = redis.call('XREVRANGE', KEYS[2 + p], '+', '-', 'COUNT', 1)
    reply[1][p] = last[1] and last[1][1] or '0-0'
end
for i = 4, #ARGV, 2 do
    local share, have, told = math.ceil(partitions / ((serving[ARGV[i]] or 0) + 1)), 0, {}
    for p = 0, partitions - 1 do
        local field = 'p:' .. p .. ':' .. ARGV[i]
        local lease = held[field]
        told[p + 1] = ''
        if lease and string.sub(lease[2], 1, #ARGV[1] + 1) == ARGV[1] .. '.' then
            if string.find(ARGV[i + 1], p, 1, true) then
                redis.call('HDEL', KEYS[1], field)
            else
                redis.call('HSET', KEYS[1], field, ends .. lease[2])
                told[p + 1] = lease[2]
                have = have + 1
            end
        end
    end
    for p = 0, partitions - 1 do
        local field = 'p:' .. p .. ':' .. ARGV[i]
        local free = not held[field] or held[field][1] <= now
        if have < share and free and told[p + 1] == '' and not string.find(ARGV[i + 1], p, 1, true) then
            redis.call('HSET', KEYS[1], field, ends .. ARGV[2])
            told[p + 1] = ARGV[2]
            have = have + 1
        end
    end
    reply[#reply + 1] = {share, unpack(told)}
end
return reply
