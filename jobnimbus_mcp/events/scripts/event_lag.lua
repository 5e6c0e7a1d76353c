-- How far behind consumers are.
-- KEYS  1.. what is due for a consumer and dead for it, ...
-- ARGV  1 now in ms
-- Reply for each {due, delayed, since when the first is due in ms ('' without), dead}
local reply = {}
for k = 1, #KEYS, 2 do
    local due = redis.call('ZCOUNT', KEYS[k], '-inf', ARGV[1])
    local first = due > 0 and redis.call('ZRANGE', KEYS[k], 0, 0, 'WITHSCORES')[2] or ''
    reply[#reply + 1] = {due, redis.call('ZCARD', KEYS[k]) - due, first, redis.call('ZCARD', KEYS[k + 1])}
end
return reply
