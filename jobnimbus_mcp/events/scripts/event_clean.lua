-- Forgets the oldest of the archive.
-- KEYS  1 archive, 2 its index
-- ARGV  1 archived before, ms, 2 most at once
-- Reply how many
local old = redis.call('XRANGE', KEYS[1], '-', '(' .. ARGV[1] .. '-0', 'COUNT', ARGV[2])
for _, entry in ipairs(old) do
    for i = 1, #entry[2], 2 do
        if entry[2][i] == 'id' then redis.call('ZREM', KEYS[2], entry[2][i + 1] .. ':' .. entry[1]) end
    end
    redis.call('XDEL', KEYS[1], entry[1])
end
return #old
