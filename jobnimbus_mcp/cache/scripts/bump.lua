-- Makes every entry with one of these tags invalid, and tells so in the log; unless it is a duplicate, notes the event.
-- KEYS  1 log, 2 this hour's counts, 3 first event of the dedupe key (or the log's key when there is none), 4 epoch,
--       5 fleet, 6 floors, 7 note of the version key (or the log's key when there is none), then the parcel's keys,
--       then generations
-- ARGV  1 event id, 2 event, 3 resource, 4 resource id, 5 source, 6 received at (s), 7 tags for L1,
--       8 life of the dedupe key ('0' none), 9 longest log, 10 life of the counts, 11 token of a new epoch,
--       12 life of an L1 lease with its margin in us, 13 life of the floors in s, 14 how far a floor may be ahead in s,
--       15 most floors, 16 'q' when nothing is shown, 'l' when the parcel is late, 17 life of the version key ('0' none), 18 number of the parcel's
--       keys, 19 number of its arguments, then those, then floor, version, floor, version, ...
-- Reply {event id, duplicate, latency in ms, position, registered, 1 unknown, which register it is, 1 parcel refused}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- The first write: a store that refuses writes says so here, even where every generation below is missing.
redis.call('EXPIRE', KEYS[2], ARGV[10])
local parcel_keys, parcel_args = tonumber(ARGV[18]), tonumber(ARGV[19])
local floors_from = 20 + parcel_args
for i = 8 + parcel_keys, #KEYS do
    -- A missing generation is already invalid; whoever is filling under it finds it missing or new.
    if redis.call('EXISTS', KEYS[i]) == 1 then
        local old = redis.pcall('GET', KEYS[i])
        old = type(old) == 'string' and tonumber(old)
        local new = now
        -- Its life goes on: nothing is kept under the new one yet, and a fill gives it the full life.
        if old and old < 9000000000000000 and old + 1 > now then new = old + 1 end
        local reply = redis.pcall('SET', KEYS[i], string.format('%.0f', new), 'KEEPTTL')
        -- No room for the new one: without any it is invalid just the same. Not even that: the caller must know.
        if reply.err then redis.call('UNLINK', KEYS[i]) end
    end
end
local latency = string.format('%.3f', math.max(0, (now / 1000000 - tonumber(ARGV[6])) * 1000))

local event, duplicate, refused = ARGV[1], 0, 0
if ARGV[8] ~= '0' then
    local first = redis.call('GET', KEYS[3])
    if first then event, duplicate = first, 1 end
end

-- What is appended in the same step; where there is no room for it, all of it is taken back and the caller told.
if duplicate == 0 and parcel_keys > 0 and redis.call('EXISTS', KEYS[8]) == 0 then
    local entry = {'id', event, 'e', ARGV[20], 'to', ARGV[22]}
    if string.find(ARGV[16], 'l', 1, true) then entry[7], entry[8] = 'late', '1' end
    local added = redis.pcall('XADD', KEYS[9], '*', unpack(entry))
    if type(added) == 'table' then
        refused = 1
    else
        local kept = redis.pcall('HSET', KEYS[8], 'e', ARGV[20], 'b', ARGV[21], 'to', ARGV[22], 'x', added,
            'left', parcel_keys - 2)
        if type(kept) == 'table' then refused = 1 end
        for i = 3, parcel_keys do
            if refused == 0 then
                local due = redis.pcall('ZADD', KEYS[7 + i], ARGV[20 + i], event)
                if type(due) == 'table' then refused = 1 end
            end
        end
        if refused == 1 then
            redis.call('XDEL', KEYS[9], added)
            redis.call('UNLINK', KEYS[8])
            for i = 3, parcel_keys do redis.call('ZREM', KEYS[7 + i], event) end
        end
    end
end
-- After the parcel: a key that is known must not stand for an event that is not.
if duplicate == 0 and refused == 0 and ARGV[8] ~= '0' then redis.pcall('SET', KEYS[3], event, 'EX', ARGV[8]) end
if refused == 0 and ARGV[17] ~= '0' then redis.pcall('SET', KEYS[7], event, 'EX', ARGV[17]) end

local oldest = now - tonumber(ARGV[13]) * 1000000
for i = floors_from, #ARGV, 2 do
    local version = math.min(tonumber(ARGV[i + 1]), math.floor(now / 1000000) + tonumber(ARGV[14]))
    local held = redis.pcall('HGET', KEYS[6], ARGV[i])
    local higher, told = string.match(type(held) == 'string' and held or '', '^(%d+)|(%d+)$')
    if told and tonumber(told) >= oldest then version = math.max(version, tonumber(higher)) end
    redis.pcall('HSET', KEYS[6], ARGV[i], string.format('%.0f|%.0f', version, now))
end
if #ARGV >= floors_from then
    redis.pcall('EXPIRE', KEYS[6], ARGV[13])
    local number = redis.pcall('HLEN', KEYS[6])
    if type(number) == 'number' and number > tonumber(ARGV[15]) then
        -- Half of them stay, the latest told, so that this is done once in a while only.
        local flat, ages = redis.call('HGETALL', KEYS[6]), {}
        for i = 1, #flat, 2 do
            ages[#ages + 1] = {tonumber(string.match(flat[i + 1], '|(%d+)$') or '0'), flat[i]}
        end
        table.sort(ages, function(a, b) return a[1] < b[1] end)
        for i = 1, number - math.floor(tonumber(ARGV[15]) / 2) do redis.call('HDEL', KEYS[6], ages[i][2]) end
    end
end

-- What L1s are told, and whether it is known who they are.
local last = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local prev = last[1] and last[1][1] or '0-0'
local line = {'tags', ARGV[7], 'prev', prev}
local shown = duplicate == 0 and refused == 0 and not string.find(ARGV[16], 'q', 1, true)
if shown then
    line = {'tags', ARGV[7], 'prev', prev, 'id', event, 'event', ARGV[2], 'resource', ARGV[3], 'resource_id', ARGV[4],
        'source', ARGV[5], 'latency_ms', latency}
end
local position = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[9], '*', unpack(line))
local unknown = 0
if type(position) == 'table' then
    -- Nobody can be told what is invalid, so all of it is.
    redis.call('UNLINK', KEYS[4])
    position, unknown = '0-0', 1
elseif redis.call('EXISTS', KEYS[4]) == 0 then
    redis.pcall('SET', KEYS[4], string.format('%.0f', now) .. '-' .. ARGV[11])
    unknown = 1
end
local register = redis.pcall('HGET', KEYS[5], '_')
if type(register) ~= 'string' then register = '' end
local since = tonumber(register)
-- Made in the future: the clock was set back, so its age says nothing.
if not since or since > now then
    redis.pcall('HSET', KEYS[5], '_', string.format('%.0f', now))
    unknown = 1
elseif now - since < tonumber(ARGV[12]) then
    unknown = 1
end
local registered = redis.pcall('HLEN', KEYS[5])
if type(registered) ~= 'number' then registered, unknown = 1, 1 end

if shown then
    local counted = redis.pcall('HINCRBY', KEYS[2], ARGV[3] .. '|' .. ARGV[5], 1)
    if type(counted) == 'number' then redis.call('EXPIRE', KEYS[2], ARGV[10]) end
end
return {event, duplicate, latency, position, math.max(0, registered - 1), unknown, register, refused}
