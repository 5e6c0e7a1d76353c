-- Looks one entry up and notes the generations of its tags.
-- KEYS  1 entry, 2 admission marker, 3 fill guard, 4 epoch, 5.. generations
-- ARGV  1 etag the caller holds ('' none), 2 '1' look the entry up / '0' only note, 3 life of the guard in s,
--       4 token of a new epoch, 5 first byte of the format, 6 life in s of a generation that no entry names yet
-- Reply {verdict, PTTL of the entry, admitted, vector, guard, value}; 0 miss, 1 hit, 2 not modified (the etag stands in
--       the vector's place, so that the reply of another command is not taken for this one's), 3 corrupt.
--       The vector is epoch and generations, one a line. An empty one: some is missing and cannot be made, so nothing
--       may be filled.
local found = redis.call('MGET', unpack(KEYS, 2))
local count = #KEYS - 1
local admitted = found[1] and 1 or 0
local whole = true
for i = 3, count do whole = whole and found[i] end

local verdict = 0
local stored, vector
if whole and ARGV[2] == '1' then
    vector = table.concat(found, '\n', 3, count)
    if ARGV[1] == '' then
        stored = redis.pcall('GET', KEYS[1])
    else
        -- The caller holds a copy, so most likely nothing but the header is wanted.
        stored = redis.pcall('GETRANGE', KEYS[1], 0, 35 + #vector)
    end
    if type(stored) == 'table' then
        verdict = 3
    elseif stored and (#stored > 0 or ARGV[1] == '') then
        local format, _, high, low = string.byte(stored, 1, 4)
        if #stored < 36 or format ~= tonumber(ARGV[5]) then
            verdict = 3
        elseif high * 256 + low == #vector and string.sub(stored, 37, 36 + #vector) == vector then
            local pttl = redis.call('PTTL', KEYS[1])
            if ARGV[1] ~= '' then
                if string.sub(stored, 21, 36) == ARGV[1] then return {2, pttl, admitted, ARGV[1]} end
                stored = redis.call('GET', KEYS[1])
            end
            if found[2] then return {1, pttl, admitted, vector, found[2], stored} end
            verdict = 1
            found[0] = pttl
        end
    end
end

-- Only from here on are generations looked at as numbers and made: one that is none matches no entry, since none is
-- ever noted.
local time = redis.call('TIME')
local fresh = string.format('%.0f', time[1] * 1000000 + time[2])
local function made(i)
    local reply
    if i == 3 then
        found[3] = fresh .. '-' .. ARGV[4]
        reply = redis.pcall('SET', KEYS[4], found[3])
    else
        found[i] = fresh
        reply = redis.pcall('SET', KEYS[i + 1], fresh, 'EX', i == 2 and ARGV[3] or ARGV[6])
    end
    return not reply.err
end
whole = (found[2] or made(2)) and (found[3] or made(3))
for i = 4, count do
    local number = found[i] and tonumber(found[i])
    whole = whole and ((number and number > 0 and number < 9000000000000000) or made(i))
end
if not whole then return {verdict == 3 and 3 or 0, 0, admitted, '', ''} end
if verdict == 1 then return {1, found[0], admitted, vector, found[2], stored} end
return {verdict, 0, admitted, table.concat(found, '\n', 3, count), found[2]}
