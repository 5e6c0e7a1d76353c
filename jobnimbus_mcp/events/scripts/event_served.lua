-- Consumers that some living worker serves.
-- KEYS  1 owners
-- Reply {consumer, ...}, one of several workers as often
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply, flat = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
    local till, names = string.match(flat[i + 1], '^(%d+)|(.*)$')
    if string.sub(flat[i], 1, 2) == 'w:' and tonumber(till) > now then
        for name in string.gmatch(names, '%S+') do reply[#reply + 1] = name end
    end
end
return reply
