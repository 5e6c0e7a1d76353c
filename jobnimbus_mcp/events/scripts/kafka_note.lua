-- What came of events, of those that the holder still holds.
-- KEYS  1 due events of the consumer, 2 its dead ones, 3 done, 4 this minute's rates, 5.. events
-- ARGV  1 consumer, 2 holder, 3 now in ms, 4 tries kept, 5 life of the rates in s, then per event: id, done | retry |
--       dead, due at in ms, reason, try as one line, ms from due to now
-- Reply how many were noted
local c, now, noted = ARGV[1], ARGV[3], 0
local field = {s = 's:' .. c, u = 'u:' .. c, h = 'h:' .. c, t = 't:' .. c}
for i = 5, #KEYS do
    local at = 6 + (i - 5) * 6
    local id, fate = ARGV[at], ARGV[at + 1]
    local told = redis.call('HMGET', KEYS[i], field.s, field.h, field.t)
    if told[1] == 'p' and string.match(told[2] or '', '^%d+|(.*)$') == ARGV[2] then
        noted = noted + 1
        local tried = told[3] and told[3] .. '\n' .. ARGV[at + 4] or ARGV[at + 4]
        local _, lines = string.gsub(tried, '\n', '\n')
        while lines >= tonumber(ARGV[4]) do
            tried, lines = string.sub(tried, string.find(tried, '\n', 1, true) + 1), lines - 1
        end
        redis.call('HSET', KEYS[i], field.t, tried)
        redis.call('HINCRBY', KEYS[i], 'n:' .. c, 1)
        redis.call('HINCRBY', KEYS[i], 'a:' .. c, 1)
        redis.call('HDEL', KEYS[i], field.h)
        if fate == 'retry' then
            redis.call('HSET', KEYS[i], field.u, ARGV[at + 2])
            redis.call('ZADD', KEYS[1], ARGV[at + 2], id)
        else
            redis.call('ZREM', KEYS[1], id)
            redis.call('HSET', KEYS[i], field.s, fate == 'done' and 'd' or 'x', 'f:' .. c, now)
            local left = redis.call('HINCRBY', KEYS[i], 'left', -1)
            if fate == 'dead' then
                redis.call('HSET', KEYS[i], 'r:' .. c, ARGV[at + 3])
                redis.call('HINCRBY', KEYS[i], 'dead', 1)
                redis.call('ZADD', KEYS[2], now, id)
            elseif left <= 0 and tonumber(redis.call('HGET', KEYS[i], 'dead')) == 0 then
                redis.call('ZADD', KEYS[3], now, id)
            end
        end
        if fate == 'done' then
            redis.call('HINCRBY', KEYS[4], c .. '|ok', 1)
            redis.call('HINCRBY', KEYS[4], c .. '|ms', ARGV[at + 5])
        else
            redis.call('HINCRBY', KEYS[4], c .. '|failed', 1)
        end
    end
end
if noted > 0 then redis.call('EXPIRE', KEYS[4], ARGV[5]) end
return noted
