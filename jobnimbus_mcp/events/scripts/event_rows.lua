-- What is known of events.
-- KEYS  1 archive, 2.. hashes of those that are live
-- ARGV  1 '1' with their bodies, 2 how many texts, the texts that the event must have, then for each event its place in
--       the archive, or '' for the next hash
-- Reply for each event {field, value, ...}, {} where it has not these texts, or nil where it is not there any more
local texts, reply, hash = tonumber(ARGV[2]), {}, 2
for i = 3 + texts, #ARGV do
    local flat
    if ARGV[i] == '' then
        flat = redis.call('HGETALL', KEYS[hash])
        hash = hash + 1
    else
        local found = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])
        flat = found[1] and found[1][2] or {}
    end
    local row, has = {}, true
    for j = 1, #flat, 2 do
        if flat[j] == 'e' then
            for t = 3, 2 + texts do has = has and string.find(flat[j + 1], ARGV[t], 1, true) ~= nil end
        end
        if ARGV[1] == '1' or flat[j] ~= 'b' then
            row[#row + 1] = flat[j]
            row[#row + 1] = flat[j + 1]
        end
    end
    reply[#reply + 1] = #flat > 0 and (has and row or {}) or false
end
return reply
