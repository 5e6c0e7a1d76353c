-- Notes what a consumer made of events, for whoever still has the lease of their partitions. An event that the last
-- consumer is done with goes to the archive, or to the dead ones when some consumer gave it up.
-- KEYS  1 owners, 2 what is due for the consumer, 3 dead, 4 dead for the consumer, 5 live, 6 archive, 7 its index,
--       8 tries of this minute, then a stream for each partition, then hashes of the events
-- ARGV  1 consumer, 2 now in ms, 3 partitions, 4 life of the tries in s, then for each event: partition, token of the
--       lease ('' without one), entry ('' none), event id, its time in ms, done, retry, dead or drop, what became of it,
--       due in ms, ms from due to done ('' no try)
-- Reply for each event 0 the lease is lost, 1 noted, 2 the event was lost
-- A first write that needs no room: a full store refuses none after it, and what was done must not be done again.
redis.call('HDEL', KEYS[1], '')
local partitions = tonumber(ARGV[3])
local reply, ok, failed, late_ms = {}, 0, 0, 0

local function finish(stream, hash, id, ms)
    if redis.call('HINCRBY', hash, 'left', -1) > 1 then return end
    -- One is left: its place among the live ones.
    for entry in string.gmatch(redis.call('HGET', hash, 'x') or '', '%S+') do redis.call('XDEL', stream, entry) end
    if tonumber(redis.call('HGET', hash, 'gone') or '0') > 0 then
        redis.call('HSET', hash, 'x', '')
        redis.call('ZADD', KEYS[3], ARGV[2], id)
        return
    end
    local place = redis.call('XADD', KEYS[6], '*', 'id', id, unpack(redis.call('HGETALL', hash)))
    redis.call('ZADD', KEYS[7], ms, id .. ':' .. place)
    redis.call('ZREM', KEYS[5], id)
    redis.call('UNLINK', hash)
end

for n = 0, (#ARGV - 4) / 9 - 1 do
    local p, token, entry, id, ms, fate, became, due, late = unpack(ARGV, 9 * n + 5, 9 * n + 13)
    local stream, hash = KEYS[9 + tonumber(p)], KEYS[9 + partitions + n]
    local lease = redis.call('HGET', KEYS[1], 'p:' .. p .. ':' .. ARGV[1])
    if token ~= '' and (not lease or string.match(lease, '^%d+|(.*)$') ~= token) then
        reply[#reply + 1] = 0
    elseif fate == 'drop' or redis.call('EXISTS', hash) == 0 then
        redis.call('ZREM', KEYS[2], id)
        redis.call('ZREM', KEYS[5], id)
        if entry ~= '' then
            redis.call('XACK', stream, ARGV[1], entry)
            redis.call('XDEL', stream, entry)
        end
        reply[#reply + 1] = 2
    else
        reply[#reply + 1] = 1
        local waiting = redis.call('ZSCORE', KEYS[2], id)
        if waiting then
            redis.call('HSET', hash, 'c:' .. ARGV[1], became)
            if late ~= '' and fate == 'done' then
                ok, late_ms = ok + 1, late_ms + tonumber(late)
            elseif late ~= '' then
                failed = failed + 1
            end
        end
        if waiting and fate == 'retry' then
            redis.call('ZADD', KEYS[2], due, id)
        else
            if entry ~= '' then redis.call('XACK', stream, ARGV[1], entry) end
            if waiting then
                redis.call('ZREM', KEYS[2], id)
                if fate == 'dead' then
                    redis.call('HINCRBY', hash, 'gone', 1)
                    redis.call('ZADD', KEYS[4], ARGV[2], id)
                end
                finish(stream, hash, id, ms)
            end
        end
    end
end
if ok + failed > 0 then
    redis.call('HINCRBY', KEYS[8], ARGV[1] .. '|ok', ok)
    redis.call('HINCRBY', KEYS[8], ARGV[1] .. '|failed', failed)
    redis.call('HINCRBY', KEYS[8], ARGV[1] .. '|ms', string.format('%.0f', late_ms))
    redis.call('EXPIRE', KEYS[8], ARGV[4])
end
return reply
