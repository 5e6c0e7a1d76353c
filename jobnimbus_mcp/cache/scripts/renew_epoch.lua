-- Makes everything of the tenant invalid.
-- KEYS  1 epoch
-- ARGV  1 token
local time = redis.call('TIME')
local new = string.format('%.0f', time[1] * 1000000 + time[2]) .. '-' .. ARGV[1]
local reply = redis.pcall('SET', KEYS[1], new)
if reply.err then redis.call('UNLINK', KEYS[1]) end
return 1
