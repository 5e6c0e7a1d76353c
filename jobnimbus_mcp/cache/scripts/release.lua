-- Gives the lease of a fetch back that kept nothing, and wakes who follows.
-- KEYS  1 lease, 2 wakes
-- ARGV  1 token, 2 key of the entry, 3 result, 4 failures, 5 for how long the next try should wait in us ('0' not),
--       6 for how long the failures are remembered in ms, 7 longest list of wakes, 8 its life in s
-- Reply 1 given back, 0 it is another's, or nobody's
local held = redis.pcall('GET', KEYS[1])
if type(held) ~= 'string' or string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. '|' then return 0 end
redis.call('UNLINK', KEYS[1])
if ARGV[5] ~= '0' then
    local time = redis.call('TIME')
    local till = time[1] * 1000000 + time[2] + tonumber(ARGV[5])
    redis.call('SET', KEYS[1], '!' .. ARGV[4] .. '|' .. string.format('%.0f', till), 'PX', ARGV[6])
end
if string.sub(held, -1) == '1' then
    redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[7], '*', 'key', ARGV[2], 'result', ARGV[3])
    redis.pcall('EXPIRE', KEYS[2], ARGV[8])
end
return 1
