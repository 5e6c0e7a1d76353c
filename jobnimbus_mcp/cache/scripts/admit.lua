-- Marks the partition as admitted unless the guard moved since: a refusal in between wins.
-- KEYS  1 admission marker, 2 fill guard, 3 trace of the bearer
-- ARGV  1 guard, 2 the marker's life in ms, 3 the trace's life in s
if redis.call('MGET', KEYS[2])[1] ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
redis.call('SET', KEYS[3], '1', 'EX', ARGV[3])
return 1
