-- KEYS  due and dead events of each consumer
-- ARGV  1 now in ms
-- Reply one {due, delayed, due since ms or '', dead} per consumer
local reply = {}
for i = 1, #KEYS, 2 do
    local due = redis.call('ZCOUNT', KEYS[i], '-inf', ARGV[1])
    local oldest = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
    reply[#reply + 1] = {due, redis.call('ZCARD', KEYS[i]) - due, due > 0 and oldest[2] or '', redis.call('ZCARD', KEYS[i + 1])}
end
return reply
