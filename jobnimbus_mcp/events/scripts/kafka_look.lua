-- KEYS  events
-- ARGV  1 '1' with their bodies
-- Reply one {field, value, ...} per event, empty where there is none
local reply = {}
for i = 1, #KEYS do
    local all, some = redis.call('HGETALL', KEYS[i]), {}
    for j = 1, #all, 2 do
        if all[j] ~= 'b' or ARGV[1] == '1' then
            some[#some + 1] = all[j]
            some[#some + 1] = all[j + 1]
        end
    end
    reply[i] = some
end
return reply
