-- The next entries of partitions for a consumer. Those that are nothing to it, or no longer, are acknowledged here.
-- KEYS  1 owners, 2 what is due for the consumer, 3.. streams
-- ARGV  1 consumer, 2 most entries of each stream, 3.. partition, token of the lease, where to read on ('>' or an entry
--       of the pending list), ...
-- Reply for each stream {0} its lease is lost, or {1, number read, last entry read ('' none), {event id, entry, event,
--       due in ms, '1' when it is late, ...}, {event id of one that is for nobody, ...}}
local reply = {}
for k = 3, #KEYS do
    local p, token, from = unpack(ARGV, 3 * k - 6, 3 * k - 4)
    local lease = redis.call('HGET', KEYS[1], 'p:' .. p .. ':' .. ARGV[1])
    if not lease or string.match(lease, '^%d+|(.*)$') ~= token then
        reply[#reply + 1] = {0}
    else
        local command = {'GROUP', ARGV[1], 'owner', 'COUNT', ARGV[2], 'STREAMS', KEYS[k], from}
        local got = redis.pcall('XREADGROUP', unpack(command))
        if got and got.err then
            -- A new consumer, or a server that has lost everything.
            redis.call('XGROUP', 'CREATE', KEYS[k], ARGV[1], '0', 'MKSTREAM')
            got = redis.call('XREADGROUP', unpack(command))
        end
        local entries = got and got[1] and got[1][2] or {}
        local rows, orphans, nothing, last = {}, {}, {}, ''
        for _, entry in ipairs(entries) do
            last = entry[1]
            local fields, due = {}, false
            if entry[2] then
                for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
                local meant = not fields.only or string.find(' ' .. fields.only .. ' ', ' ' .. ARGV[1] .. ' ', 1, true)
                due = meant and redis.call('ZSCORE', KEYS[2], fields.id)
                if fields.to == '{}' then orphans[#orphans + 1] = fields.id end
            end
            if due then
                local n = #rows
                rows[n + 1], rows[n + 2], rows[n + 3], rows[n + 4] = fields.id, entry[1], fields.e, due
                rows[n + 5] = fields.late or ''
            else
                nothing[#nothing + 1] = entry[1]
            end
        end
        if #nothing > 0 then redis.call('XACK', KEYS[k], ARGV[1], unpack(nothing)) end
        reply[#reply + 1] = {1, #entries, last, rows, orphans}
    end
end
return reply
