-- Positions or counts, as they are.
-- KEYS  hashes
-- Reply for each hash {field, value, field, value, ...}
local found = {}
for i = 1, #KEYS do found[i] = redis.call('HGETALL', KEYS[i]) end
return found
