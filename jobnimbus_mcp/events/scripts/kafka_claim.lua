-- Which of these events the holder may work on; those it may are its own for a while.
-- KEYS  1 up to when events were forgotten in ms, 2.. events
-- ARGV  1 consumer, 2 holder, 3 how long in ms, 4 now in ms, by which events are due, 5.. when each was received in ms
-- Reply one {verdict, tries before, number} per event; verdict 0 yours, 1 over, 2 another's for so many ms, 3 not due
--       before this ms, 4 unknown
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local forgotten = tonumber(redis.call('GET', KEYS[1]) or '0')
local reply = {}
for i = 2, #KEYS do
    local c = ARGV[1]
    local told = redis.call('HMGET', KEYS[i], 's:' .. c, 'n:' .. c, 'u:' .. c, 'h:' .. c)
    local verdict, number = 1, '0'
    if not told[1] then
        if tonumber(ARGV[i + 3]) >= forgotten then verdict = 4 end
    elseif told[1] == 'p' then
        local till, holder = string.match(told[4] or '', '^(%d+)|(.*)$')
        if holder and holder ~= ARGV[2] and tonumber(till) > clock then
            verdict, number = 2, string.format('%.0f', tonumber(till) - clock)
        elseif tonumber(told[3]) > tonumber(ARGV[4]) then
            verdict, number = 3, told[3]
        else
            redis.call('HSET', KEYS[i], 'h:' .. c, string.format('%.0f', clock + tonumber(ARGV[3])) .. '|' .. ARGV[2])
            verdict, number = 0, told[3]
        end
    end
    reply[i - 1] = {verdict, tonumber(told[2] or '0'), number}
end
return reply
