-- Takes what one process at a time has, or goes on having it.
-- KEYS  1 holder
-- ARGV  1 token, 2 life in ms
-- Reply 1 when it is the token's, 0 when another's
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
