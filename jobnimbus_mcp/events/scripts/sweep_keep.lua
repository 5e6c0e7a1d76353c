-- Keeps the ids that a sweep has found, while the token has the right to.
-- KEYS  1 holder, 2 ids
-- ARGV  1 token, 2 ids, compressed, 3 life in s
-- Reply 1 when kept, 0 when the token is another's
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
