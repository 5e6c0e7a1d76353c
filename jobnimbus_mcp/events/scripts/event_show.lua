-- All that is known of one event.
-- KEYS  1 hash of the event, 2 archive, 3 its index
-- ARGV  1 event id, 2 its time in ms
-- Reply {field, value, ...}; {} when there is no such event
local flat = redis.call('HGETALL', KEYS[1])
if #flat > 0 then return flat end
for _, member in ipairs(redis.call('ZRANGE', KEYS[3], ARGV[2], ARGV[2], 'BYSCORE')) do
    local id, place = string.match(member, '^([^:]*):(.*)$')
    if id == ARGV[1] then
        local found = redis.call('XRANGE', KEYS[2], place, place)
        return found[1] and found[1][2] or {}
    end
end
return {}
