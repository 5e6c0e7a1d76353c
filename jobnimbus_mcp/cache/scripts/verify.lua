-- Makes everything of the tenant invalid when this server process is not the one that was there the last time: a
-- restart or a failover may have lost the latest invalidations, and have kept the entries they were about.
-- KEYS  1 epoch, 2 the process that was there the last time
-- ARGV  1 token of a new epoch
-- Reply 0 the same one, 1 none was noted, 2 another one, 3 it does not tell which one it is, so it may be another
local told = redis.pcall('INFO', 'server')
local run = type(told) == 'string' and string.match(told, 'run_id:(%w+)')
local last = redis.call('MGET', KEYS[2])[1]
if run and last == run then return 0 end
local time = redis.call('TIME')
local new = string.format('%.0f', time[1] * 1000000 + time[2]) .. '-' .. ARGV[1]
if redis.pcall('SET', KEYS[1], new).err then redis.call('UNLINK', KEYS[1]) end
if not run then return 3 end
-- Last, and it may fail: in a full store the next look finds another process again.
redis.pcall('SET', KEYS[2], run)
return last and 2 or 1
