-- Marks the partition as admitted unless the guard moved since: a refusal in between wins.
-- KEYS  1 admission marker, 2 fill guard
-- ARGV  1 guard, 2 the marker's life in ms
if redis.call('MGET', KEYS[2])[1] ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
return 1
