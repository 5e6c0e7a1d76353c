-- Renews the lease of a fetch.
-- KEYS  1 lease
-- ARGV  1 token, 2 life of the lease in ms
-- Reply 1 renewed, 0 it is another's, or nobody's
local held = redis.pcall('GET', KEYS[1])
if type(held) ~= 'string' or string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. '|' then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
