-- Makes everything of the tenant invalid when this server process is not the one that was there the last time: a
-- restart or a failover may have lost the latest invalidations, and have kept the entries they were about. It may have
-- lost who has an L1 as well, so the register of them starts anew. The same when it has not the caller's last
-- invalidation, unless all that is kept is younger: a server that did not know it was replaced has confirmed that.
-- KEYS  1 epoch, 2 the process that was there the last time, 3 log, 4 fleet
-- ARGV  1 token of a new epoch, 2 longest log, 3 position of the last invalidation confirmed to the caller ('' none)
-- Reply {0 the same one, 1 none was noted or the invalidation is missing, 2 another one, 3 it does not tell which one it
--       is, so it may be another; its run id ('' untold)}
local told = redis.pcall('INFO', 'server')
local run = type(told) == 'string' and string.match(told, 'run_id:(%w+)')
local found = redis.call('MGET', KEYS[2], KEYS[1])
local noted, epoch = found[1], found[2]
local same = run and noted == run
if same then
    local missing = ARGV[3] ~= '' and #redis.pcall('XRANGE', KEYS[3], ARGV[3], ARGV[3]) == 0
    -- Nothing is kept that was fetched before the epoch was made; the two servers' clocks may be a second apart.
    local younger = tonumber(string.match(epoch or '', '^%d+') or '0') / 1000 - 1000
    if not missing or younger > tonumber(string.match(ARGV[3], '^%d+')) then return {0, run} end
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
if redis.pcall('SET', KEYS[1], now .. '-' .. ARGV[1]).err then redis.call('UNLINK', KEYS[1]) end
local last = redis.pcall('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
local prev = last[1] and last[1][1] or '0-0'
local line = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'tags', '*', 'prev', prev)
if type(line) == 'table' then redis.call('UNLINK', KEYS[1]) end
-- Who is registered stays: nobody whom a bump must wait for is forgotten, and those who are gone are struck out.
if type(redis.pcall('HSET', KEYS[4], '_', now)) == 'table' then redis.call('UNLINK', KEYS[4]) end
if same then return {1, run} end
if not run then return {3, ''} end
-- Last, and it may fail: in a full store the next look finds another process again.
redis.pcall('SET', KEYS[2], run)
return {noted and 2 or 1, run}
