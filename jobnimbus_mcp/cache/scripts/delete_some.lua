-- One step of a scan that deletes. The first and the last step move the guard, so that a fill under way while it ran
-- does not bring back what was deleted.
-- KEYS  1 fill guard
-- ARGV  1 cursor, 2 glob, 3 count, 4 life of the guard in s
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
if step[1] == '0' then move() end
return {step[1], deleted}
