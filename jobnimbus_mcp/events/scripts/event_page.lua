-- Ids of events, the latest first.
-- KEYS  1 live, 2 index of the archive
-- ARGV  1 and 2 times in ms, the latest ('+inf') and the earliest ('-inf'), 3 below which id ('' any), 4 most of either,
--       5 '1' from the archive as well
-- Reply {{id, ...}, {id:place in the archive, ...}}
local function latest(key, most)
    local found, offset = {}, 0
    while #found < most do
        local some = redis.call('ZRANGE', key, ARGV[1], ARGV[2], 'BYSCORE', 'REV', 'LIMIT', offset, most)
        for _, member in ipairs(some) do
            if ARGV[3] == '' or string.match(member, '^[^:]*') < ARGV[3] then found[#found + 1] = member end
        end
        if #some < most then break end
        offset = offset + most
    end
    return found
end
local most = tonumber(ARGV[4])
return {latest(KEYS[1], most), ARGV[5] == '1' and latest(KEYS[2], most) or {}}
