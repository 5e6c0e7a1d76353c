-- Gives back what one process at a time has, if it is the token's.
-- KEYS  1 holder
-- ARGV  1 token
-- Reply 1 when it was
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
return 1
