-- Looks one entry up and notes the generations of its tags.
-- KEYS  1 entry, 2 admission marker, 3 fill guard, 4 epoch, 5.. generations
-- ARGV  1 etag the caller holds ('' none), 2 '1' look the entry up / '0' only note, 3 life of the guard in s,
--       4 token of a new epoch, 5 first byte of the format, 6 life in s of a generation that no entry names yet,
--       7 '1' an entry of older generations is wanted too
-- Reply {verdict, PTTL of the entry, PTTL of the marker, vector, guard, value}; 0 miss, 1 hit, 2 not modified (the etag
--       stands in the value's place, so that the reply of another command is not taken for this one's), 3 corrupt,
--       4 dirty. The vector is epoch and generations, one a line. An empty one: some is missing and cannot be made, so
--       nothing may be filled.
local found = redis.call('MGET', unpack(KEYS, 3))
local count = #KEYS - 2
local admitted = redis.call('PTTL', KEYS[2])
local whole = true
for i = 2, count do whole = whole and found[i] end

local verdict, pttl = 0, 0
local stored, vector
if ARGV[2] == '1' and (whole or ARGV[7] == '1') then
    vector = whole and table.concat(found, '\n', 2, count)
    if ARGV[1] == '' or not whole then
        stored = redis.pcall('GET', KEYS[1])
    else
        -- The caller holds a copy, so most likely nothing but the header is wanted.
        stored = redis.pcall('GETRANGE', KEYS[1], 0, 47 + #vector)
    end
    if type(stored) == 'table' then
        verdict = 3
    elseif stored and string.byte(stored, 1) == tonumber(ARGV[5]) then
        local _, _, high, low = string.byte(stored, 1, 4)
        if #stored < 48 then
            verdict = 3
        elseif whole and high * 256 + low == #vector and string.sub(stored, 49, 48 + #vector) == vector then
            pttl = redis.call('PTTL', KEYS[1])
            if ARGV[1] == '' then
                verdict = 1
            elseif string.sub(stored, 21, 36) == ARGV[1] then
                verdict, stored = 2, ARGV[1]
            else
                verdict, stored = 1, redis.call('GET', KEYS[1])
            end
            if found[1] then return {verdict, pttl, admitted, vector, found[1], stored} end
        elseif ARGV[7] == '1' then
            verdict, pttl = 4, redis.call('PTTL', KEYS[1])
            if ARGV[1] ~= '' and whole then stored = redis.call('GET', KEYS[1]) end
        end
    end
end

-- Only from here on are generations looked at as numbers and made: one that is none matches no entry, since none is
-- ever noted.
local time = redis.call('TIME')
local fresh = string.format('%.0f', time[1] * 1000000 + time[2])
local function made(i)
    local reply
    if i == 2 then
        found[2] = fresh .. '-' .. ARGV[4]
        reply = redis.pcall('SET', KEYS[4], found[2])
    else
        found[i] = fresh
        reply = redis.pcall('SET', KEYS[i + 2], fresh, 'EX', i == 1 and ARGV[3] or ARGV[6])
    end
    return not reply.err
end
whole = (found[1] or made(1)) and (found[2] or made(2))
for i = 3, count do
    local number = found[i] and tonumber(found[i])
    whole = whole and ((number and number > 0 and number < 9000000000000000) or made(i))
end
local noted, guard = '', ''
if whole then noted, guard = table.concat(found, '\n', 2, count), found[1] end
if verdict == 0 or verdict == 3 then return {verdict, 0, admitted, noted, guard} end
return {verdict, pttl, admitted, noted, guard, stored}
