-- Counts uses of questions. A score is log2 of the uses, each worth twice the one an hour earlier.
-- KEYS  1 sorted set of questions
-- ARGV  1 seconds in which a use loses half its weight, 2 questions to keep, 3 life of the key in s,
--       then question, uses, question, uses, ...
-- Reply number of questions
local time, log2 = redis.call('TIME'), math.log(2)
local now = (tonumber(time[1]) + tonumber(time[2]) / 1000000) / tonumber(ARGV[1])
for i = 4, #ARGV, 2 do
    local score = now + math.log(tonumber(ARGV[i + 1])) / log2
    local before = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '')
    if before then
        local high, low = math.max(before, score), math.min(before, score)
        score = high + math.log(1 + 2 ^ (low - high)) / log2
    end
    redis.call('ZADD', KEYS[1], string.format('%.17g', score), ARGV[i])
end
-- Pruned to the half, so that what is new has time to be asked again before it is compared.
local most = tonumber(ARGV[2])
if redis.call('ZCARD', KEYS[1]) > 2 * most then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(most + 1)) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('ZCARD', KEYS[1])
