-- Notes how far polling or a sweep has come, and what was counted on the way, while the token has the right to.
-- KEYS  1 holder, 2 hash of positions, 3 hash of counts (or the positions' key when there are none)
-- ARGV  1 token, 2 life of the positions in s, 3 life of the counts in s, 4 number of positions, then field and value of
--       each, then field and increment of each count
-- Reply 1 when noted, 0 when the token is another's
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local counts_from = 5 + 2 * tonumber(ARGV[4])
for i = 5, counts_from - 1, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[2], ARGV[2])
for i = counts_from, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[3], ARGV[i], ARGV[i + 1])
    redis.call('EXPIRE', KEYS[3], ARGV[3])
end
return 1
