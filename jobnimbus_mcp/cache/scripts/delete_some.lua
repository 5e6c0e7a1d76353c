-- One step of a scan that deletes. The first and the last step move the guard, so that a fill under way while it ran
-- does not bring back what was deleted; the last tells L1s by the log.
-- KEYS  1 fill guard, 2 epoch, 3 log
-- ARGV  1 cursor, 2 glob, 3 count, 4 life of the guard in s, 5 longest log
-- Reply {next cursor, number deleted}
local function move()
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    local old = tonumber(redis.call('MGET', KEYS[1])[1] or '')
    if old and old < 9000000000000000 and old + 1 > now then now = old + 1 end
    if redis.pcall('SET', KEYS[1], string.format('%.0f', now), 'EX', ARGV[4]).err then redis.call('UNLINK', KEYS[1]) end
end
if ARGV[1] == '0' then move() end
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local deleted = 0
for _, key in ipairs(step[2]) do deleted = deleted + redis.call('UNLINK', key) end
if step[1] == '0' then
    move()
    local last = redis.pcall('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
    local prev = last[1] and last[1][1] or '0-0'
    local line = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'tags', '*', 'prev', prev)
    if type(line) == 'table' then redis.call('UNLINK', KEYS[2]) end
end
return {step[1], deleted}
