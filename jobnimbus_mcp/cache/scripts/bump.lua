-- Makes every entry with one of these tags invalid; unless it is a duplicate, notes the event.
-- KEYS  1 log, 2 this hour's counts, 3 first event of the dedupe key (or the log's key when there is none),
--       4.. generations
-- ARGV  1 event id, 2 event, 3 resource, 4 resource id, 5 source, 6 received at (s), 7 tags,
--       8 life of the dedupe key ('0' none), 9 longest log, 10 life of the counts
-- Reply {event id, duplicate, latency in ms}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- The first write: a store that refuses writes says so here, even where every generation below is missing.
redis.call('EXPIRE', KEYS[2], ARGV[10])
for i = 4, #KEYS do
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
if ARGV[8] ~= '0' then
    local first = redis.call('GET', KEYS[3])
    if first then return {first, 1, latency} end
    redis.pcall('SET', KEYS[3], ARGV[1], 'EX', ARGV[8])
end
-- The log is for people: in a full store it may miss a line, which must not undo the invalidation.
redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[9], '*', 'id', ARGV[1], 'event', ARGV[2], 'resource', ARGV[3],
    'resource_id', ARGV[4], 'source', ARGV[5], 'tags', ARGV[7], 'latency_ms', latency)
local counted = redis.pcall('HINCRBY', KEYS[2], ARGV[3] .. '|' .. ARGV[5], 1)
if type(counted) == 'number' then redis.call('EXPIRE', KEYS[2], ARGV[10]) end
return {ARGV[1], 0, latency}
