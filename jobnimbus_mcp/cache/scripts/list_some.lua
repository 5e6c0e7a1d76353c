-- One step of a scan that lists entries.
-- KEYS  1 any key of the tenant, to find its slot
-- ARGV  1 cursor, 2 glob, 3 count, 4 bytes wanted of each value's start
-- Reply {next cursor, {key, start, PTTL, size, key, ...}}
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local rows = {}
for _, key in ipairs(step[2]) do
    local head = redis.pcall('GETRANGE', key, 0, ARGV[4] - 1)
    if type(head) == 'string' then
        rows[#rows + 1] = key
        rows[#rows + 1] = head
        rows[#rows + 1] = redis.call('PTTL', key)
        rows[#rows + 1] = redis.call('STRLEN', key)
    end
end
return {step[1], rows}
