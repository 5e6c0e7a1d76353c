-- Ids of all events that wait or are dead, where there are not too many.
-- KEYS  due, or dead, events of each consumer
-- ARGV  1 most
-- Reply {1, ids} or {0}
local number, reply = 0, {}
for i = 1, #KEYS do number = number + redis.call('ZCARD', KEYS[i]) end
if number > tonumber(ARGV[1]) then return {0} end
for i = 1, #KEYS do
    for _, id in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do reply[#reply + 1] = id end
end
return {1, reply}
