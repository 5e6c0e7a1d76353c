-- What is needed to act on events, for whoever still has the lease of their partitions.
-- KEYS  1 owners, 2 what is due for the consumer, 3.. hashes of the events
-- ARGV  1 consumer, 2.. partition, token of the lease, event id, ...
-- Reply for each event 0 the lease is lost, 1 it is done with, 2 it is lost, or {body, what became of it so far}
-- A write that changes nothing: where the outcome could not be noted, nothing is begun.
redis.call('HDEL', KEYS[1], '')
local reply, leases = {}, {}
for k = 3, #KEYS do
    local p, token, id = unpack(ARGV, 3 * k - 7, 3 * k - 5)
    if leases[p] == nil then
        leases[p] = string.match(redis.call('HGET', KEYS[1], 'p:' .. p .. ':' .. ARGV[1]) or '', '^%d+|(.*)$') or ''
    end
    if leases[p] ~= token then
        reply[#reply + 1] = 0
    elseif not redis.call('ZSCORE', KEYS[2], id) then
        reply[#reply + 1] = 1
    else
        local found = redis.call('HMGET', KEYS[k], 'e', 'b', 'c:' .. ARGV[1])
        reply[#reply + 1] = found[1] and {found[2] or '', found[3] or ''} or 2
    end
end
return reply
