-- Keeps the rows of a bulk run, unless there are some.
-- KEYS  1 rows
-- ARGV  1 rows, 2 life in ms
-- Reply what is kept now
local held = redis.call('GET', KEYS[1])
if held then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return held
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
