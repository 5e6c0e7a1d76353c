-- KEYS  rates of minutes
-- Reply one {field, number, ...} per minute
local reply = {}
for i = 1, #KEYS do reply[i] = redis.call('HGETALL', KEYS[i]) end
return reply
