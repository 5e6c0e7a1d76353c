-- Makes everything of the tenant invalid, and tells so in the log.
-- KEYS  1 epoch, 2 log, 3 fleet
-- ARGV  1 token, 2 longest log, 3 life of an L1 lease with its margin in us
-- Reply {position, registered, 1 unknown, which register it is}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local unknown = redis.call('EXISTS', KEYS[1]) == 0 and 1 or 0
if redis.pcall('SET', KEYS[1], string.format('%.0f', now) .. '-' .. ARGV[1]).err then redis.call('UNLINK', KEYS[1]) end
local last = redis.pcall('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local prev = last[1] and last[1][1] or '0-0'
local position = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'tags', '*', 'prev', prev)
if type(position) == 'table' then
    redis.call('UNLINK', KEYS[1])
    position, unknown = '0-0', 1
end
local register = redis.pcall('HGET', KEYS[3], '_')
if type(register) ~= 'string' then register = '' end
local since = tonumber(register)
if not since or since > now then
    redis.pcall('HSET', KEYS[3], '_', string.format('%.0f', now))
    unknown = 1
elseif now - since < tonumber(ARGV[3]) then
    unknown = 1
end
local registered = redis.pcall('HLEN', KEYS[3])
if type(registered) ~= 'number' then registered, unknown = 1, 1 end
return {position, math.max(0, registered - 1), unknown, register}
