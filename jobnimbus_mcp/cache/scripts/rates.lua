-- The counts of several hours.
-- KEYS  one hash per hour
-- Reply one flat list of field, number per key
local hours = {}
for i = 1, #KEYS do hours[i] = redis.call('HGETALL', KEYS[i]) end
return hours
