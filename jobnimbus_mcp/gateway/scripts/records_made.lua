-- Under whose keys records were made.
-- KEYS  records, as the second of receipt_end
-- Reply digest of the idempotency key, or nil, of each
return redis.call('MGET', unpack(KEYS))
