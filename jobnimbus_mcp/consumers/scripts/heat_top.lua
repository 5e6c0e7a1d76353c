-- The questions with the most uses.
-- KEYS  1 sorted set of questions
-- ARGV  1 seconds in which a use loses half its weight, 2 how many at most, 3 log2 of the fewest uses, or '-inf'
-- Reply {the server's clock in epoch seconds, question, score, question, score, ...}, the most used first
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local least = '-inf'
if ARGV[3] ~= '-inf' then least = string.format('%.17g', now / tonumber(ARGV[1]) + tonumber(ARGV[3])) end
local found = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', least, 'WITHSCORES', 'LIMIT', 0, ARGV[2])
table.insert(found, 1, string.format('%.17g', now))
return found
