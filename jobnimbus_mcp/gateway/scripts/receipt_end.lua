-- Says how a write under an idempotency key ended, unless somebody else has the key by now.
-- KEYS  1 receipt, as in receipt_begin; 2, of 'done' where a record was made, under whose key that was
-- ARGV  1 token, 2 'done', 'sent' (not seen how), 'looked' (the same, and nothing was sent) or 'forget',
--       3 what it gave, 4 life in ms, 5 digest of the idempotency key
-- Reply 1 noted, 0 the key is another's
if redis.call('HGET', KEYS[1], 'k') ~= ARGV[1] then return 0 end
if ARGV[2] == 'forget' then return redis.call('UNLINK', KEYS[1]) end
redis.call('HSET', KEYS[1], 'k', '', 't', '')
if ARGV[2] == 'done' then
    redis.call('HSET', KEYS[1], 'r', ARGV[3])
    if KEYS[2] then redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[4]) end
elseif ARGV[2] == 'sent' then
    local time = redis.call('TIME')
    redis.call('HSET', KEYS[1], 'u', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
