-- A consumer is no more, once nothing waits for it: then nothing is kept for it any longer.
-- KEYS  1 consumers, 2 what is due for it, 3.. streams
-- ARGV  1 consumer, 2 most
-- Reply {id, ...} of the first events that are due for it, or will be; {} it is no more
local waiting = redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[2]) - 1)
if #waiting == 0 then
    redis.call('HDEL', KEYS[1], ARGV[1])
    for k = 3, #KEYS do redis.pcall('XGROUP', 'DESTROY', KEYS[k], ARGV[1]) end
end
return waiting
