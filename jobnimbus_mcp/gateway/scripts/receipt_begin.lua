-- Takes an idempotency key, or says what is known of it.
-- KEYS  1 receipt: hash of f fingerprint, k token of who is at it, b when it began (s, of who began), t end of the
--       lease (ms, '' when nobody is at it), u when it may last have been sent (ms), r what it gave
-- ARGV  1 fingerprint, 2 token, 3 when it begins (s), 4 lease in ms, 5 life in ms
-- Reply {'new'}, {'another'}, {'running', ms left}, {'done', what it gave}, {'unknown', when it began, ms since it may
--       have been sent}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'f', 'b', 't', 'u', 'r')
if not held[1] then
    redis.call('HSET', KEYS[1], 'f', ARGV[1], 'k', ARGV[2], 'b', ARGV[3], 't', string.format('%.0f', now + ARGV[4]))
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
    return {'new'}
end
if held[1] ~= ARGV[1] then return {'another'} end
if held[5] then return {'done', held[5]} end
local till = tonumber(held[3])
if till and till > now then return {'running', string.format('%.0f', till - now)} end
-- Whoever was at it has died: up to the end of its lease it may have sent.
local uncertain = till or tonumber(held[4]) or now
redis.call('HSET', KEYS[1], 'k', ARGV[2], 't', string.format('%.0f', now + ARGV[4]),
    'u', string.format('%.0f', uncertain))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {'unknown', held[2], string.format('%.0f', math.max(0, now - uncertain))}
