-- Forgets events that are over and were given up by nobody of late.
-- KEYS  1 up to when events were forgotten in ms, 2 index, 3 done, then dead events of each consumer, then events
-- ARGV  1 before this ms, 2 how many consumers, 3.. event ids
-- Reply how many were forgotten
local consumers, before, forgotten = tonumber(ARGV[2]), tonumber(ARGV[1]), 0
if before > tonumber(redis.call('GET', KEYS[1]) or '0') then redis.call('SET', KEYS[1], ARGV[1]) end
for i = 3, #ARGV do
    local key, id = KEYS[3 + consumers + i - 2], ARGV[i]
    local over = tonumber(redis.call('HGET', key, 'left') or '0') <= 0
    for j = 4, 3 + consumers do
        local dead = tonumber(redis.call('ZSCORE', KEYS[j], id) or '0')
        if dead >= before then over = false end
    end
    if over then
        forgotten = forgotten + redis.call('UNLINK', key)
        redis.call('ZREM', KEYS[2], id)
        redis.call('ZREM', KEYS[3], id)
        for j = 4, 3 + consumers do redis.call('ZREM', KEYS[j], id) end
    end
end
return forgotten
