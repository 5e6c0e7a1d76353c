-- Adds to lasting sums, all or none, and each batch of a process once.
-- KEYS  1 sums, 2 the process's last batch
-- ARGV  1 number of this batch, growing, 2 life of the second key in s, then field, number, field, number, ...
-- Reply 1 added, 0 it had been added before
local last = tonumber(redis.call('GET', KEYS[2]) or '')
if last and last >= tonumber(ARGV[1]) then return 0 end
for i = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return 1
