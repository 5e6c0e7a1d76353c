-- Keeps an entry unless something was invalidated since its generations were noted.
-- KEYS  1 entry, 2 admission marker, 3 fill guard, 4 epoch, 5.. generations, last: trace of the bearer
-- ARGV  1 vector, 2 guard, 3 value, 4 its life in ms, 5 the marker's life in ms, 6 life of a generation in s
-- Reply 1 stored, 0 raced
local last = #KEYS - 1
local found = redis.call('MGET', unpack(KEYS, 3, last))
local count = last - 2
if found[1] ~= ARGV[2] then return 0 end
for i = 2, count do
    if not found[i] then return 0 end
end
if table.concat(found, '\n', 2, count) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[5])
redis.call('SET', KEYS[#KEYS], '1', 'EX', ARGV[6])
local life = tonumber(ARGV[6])
for i = 5, last do
    if redis.call('TTL', KEYS[i]) < life then redis.call('EXPIRE', KEYS[i], ARGV[6]) end
end
return 1
