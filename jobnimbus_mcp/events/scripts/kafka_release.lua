-- What the holder still holds of these events is free.
-- KEYS  events
-- ARGV  1 consumer, 2 holder
local field = 'h:' .. ARGV[1]
for i = 1, #KEYS do
    if string.match(redis.call('HGET', KEYS[i], field) or '', '^%d+|(.*)$') == ARGV[2] then
        redis.call('HDEL', KEYS[i], field)
    end
end
return 1
