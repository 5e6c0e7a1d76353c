-- Which of these keys are there.
-- KEYS  any
-- Reply 1 or 0 for each
local found = {}
for i = 1, #KEYS do found[i] = redis.call('EXISTS', KEYS[i]) end
return found
