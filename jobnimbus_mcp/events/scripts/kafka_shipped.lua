-- A broker has confirmed the event.
-- KEYS  1 event
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'x', '1') end
return 1
