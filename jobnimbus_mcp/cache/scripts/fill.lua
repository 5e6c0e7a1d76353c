-- Keeps an entry unless something was invalidated since its generations were noted, and ends the lease of its fetch.
-- KEYS  1 entry, 2 admission marker, 3 fill guard, 4 epoch, 5.. generations, last but two: trace of the bearer,
--       last but one: lease, last: wakes
-- ARGV  1 vector, 2 guard, 3 value, 4 its life in ms, 5 the marker's life in ms, 6 life of a generation in s,
--       7 token of the lease ('' none), 8 longest list of wakes, 9 its life in s
-- Reply 1 stored, 0 raced, or the lease is another's
local last = #KEYS - 3
local token = ARGV[7]
local follows
if token ~= '' then
    local held = redis.pcall('GET', KEYS[last + 2])
    if type(held) ~= 'string' or string.sub(held, 1, #token + 1) ~= token .. '|' then return 0 end
    follows = string.sub(held, -1) == '1'
end
local found = redis.call('MGET', unpack(KEYS, 3, last))
local count = last - 2
local kept = found[1] == ARGV[2]
for i = 2, count do kept = kept and found[i] end
kept = kept and table.concat(found, '\n', 2, count) == ARGV[1]
-- The first write, and kept in mind when it is refused: the lease is given back all the same.
local reply = kept and redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
local stored = kept and not reply.err
if token ~= '' then
    redis.call('UNLINK', KEYS[last + 2])
    if follows then
        redis.pcall('XADD', KEYS[last + 3], 'MAXLEN', '~', ARGV[8], '*', 'key', KEYS[1], 'result',
            stored and 'stored' or 'unkept')
        redis.pcall('EXPIRE', KEYS[last + 3], ARGV[9])
    end
end
if not kept then return 0 end
if not stored then return reply end
-- A longer acceptance came from an answer that the origin gave while this one was put together.
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[5]) then redis.call('SET', KEYS[2], '1', 'PX', ARGV[5]) end
redis.call('SET', KEYS[last + 1], '1', 'EX', ARGV[6])
local life = tonumber(ARGV[6])
for i = 5, last do
    if redis.call('TTL', KEYS[i]) < life then redis.call('EXPIRE', KEYS[i], ARGV[6]) end
end
return 1
