-- Adds to lasting sums, all or none.
-- KEYS  1 sums
-- ARGV  field, number, field, number, ...
for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
