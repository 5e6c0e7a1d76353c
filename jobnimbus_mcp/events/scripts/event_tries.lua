-- Tries of some minutes.
-- KEYS  1.. tries of a minute
-- Reply {{field, number, ...}, ...}
local reply = {}
for k = 1, #KEYS do reply[k] = redis.call('HGETALL', KEYS[k]) end
return reply
