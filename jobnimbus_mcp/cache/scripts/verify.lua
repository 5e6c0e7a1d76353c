-- Makes everything of the tenant invalid when this server process is not the one that was there the last time: a
-- restart or a failover may have lost the latest invalidations, and have kept the entries they were about. It may have
-- lost who has an L1 as well, so the register of them starts anew.
-- KEYS  1 epoch, 2 the process that was there the last time; log and fleet are named like the epoch
-- ARGV  1 token of a new epoch
-- Reply 0 the same one, 1 none was noted, 2 another one, 3 it does not tell which one it is, so it may be another
local told = redis.pcall('INFO', 'server')
local run = type(told) == 'string' and string.match(told, 'run_id:(%w+)')
local noted = redis.call('MGET', KEYS[2])[1]
if run and noted == run then return 0 end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
if redis.pcall('SET', KEYS[1], now .. '-' .. ARGV[1]).err then redis.call('UNLINK', KEYS[1]) end
local prefix = string.sub(KEYS[1], 1, -#'epoch' - 1)
local last = redis.pcall('XREVRANGE', prefix .. 'log', '+', '-', 'COUNT', 1)
local prev = last[1] and last[1][1] or '0-0'
local line = redis.pcall('XADD', prefix .. 'log', '*', 'tags', '*', 'prev', prev)
if type(line) == 'table' then redis.call('UNLINK', KEYS[1]) end
-- Who is registered stays: nobody whom a bump must wait for is forgotten, and those who are gone are struck out.
if type(redis.pcall('HSET', prefix .. 'fleet', '_', now)) == 'table' then redis.call('UNLINK', prefix .. 'fleet') end
if not run then return 3 end
-- Last, and it may fail: in a full store the next look finds another process again.
redis.pcall('SET', KEYS[2], run)
return noted and 2 or 1
