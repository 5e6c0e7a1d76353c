-- Removes instances from the fleet, each unless it has registered anew.
-- KEYS  1 fleet
-- ARGV  1 instance, 2 what it had registered ('' whatever it has), 3 instance, ...
-- Reply the number removed
local struck = 0
for i = 1, #ARGV, 2 do
    if ARGV[i] ~= '_' and (ARGV[i + 1] == '' or redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1]) then
        struck = struck + redis.call('HDEL', KEYS[1], ARGV[i])
    end
end
return struck
