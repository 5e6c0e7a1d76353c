-- Was the partition admitted lately, and the guard to be handed back when it is admitted now.
-- KEYS  1 admission marker, 2 fill guard
-- ARGV  1 life of the guard in s
-- Reply {admitted, guard}; an empty guard could not be made
local admitted = redis.call('EXISTS', KEYS[1])
local guard = redis.call('MGET', KEYS[2])[1]
if not guard then
    local time = redis.call('TIME')
    guard = string.format('%.0f', time[1] * 1000000 + time[2])
    if redis.pcall('SET', KEYS[2], guard, 'EX', ARGV[1]).err then guard = '' end
end
return {admitted, guard}
