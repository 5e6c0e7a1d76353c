-- KEYS  1 token, 2.. events
-- ARGV  1 a new token
-- Reply {token, 1 or 0 for each event: is it kept for some consumer}
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local reply = {redis.call('GET', KEYS[1])}
for i = 2, #KEYS do
    reply[i] = tonumber(redis.call('HGET', KEYS[i], 'left') or '0') > 0 and 1 or 0
end
return reply
