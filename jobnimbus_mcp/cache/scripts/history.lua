-- The log since a position, or since so long ago, whichever is longer.
-- KEYS  1 log, 2 epoch
-- ARGV  1 position ('' none), 2 how long ago in ms, 3 most lines
-- Reply {epoch ('' none), now in ms, position of the last line, of the last line from before that time, lines as
--       {position, {field, value, ...}}}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local position = last[1] and last[1][1] or '0-0'
local young = redis.call('XRANGE', KEYS[1], string.format('%.0f', math.max(0, now - ARGV[2])), '+', 'COUNT', 1)
local settled = position
if young[1] then
    settled = '0-0'
    local fields = young[1][2]
    for i = 1, #fields, 2 do
        if fields[i] == 'prev' then settled = fields[i + 1] end
    end
end
local from = settled
if ARGV[1] ~= '' then
    local ms, number = string.match(ARGV[1], '^(%d+)-(%d+)$')
    local settled_ms, settled_number = string.match(settled, '^(%d+)-(%d+)$')
    ms, number, settled_ms, settled_number =
        tonumber(ms), tonumber(number), tonumber(settled_ms), tonumber(settled_number)
    if ms < settled_ms or (ms == settled_ms and number < settled_number) then from = ARGV[1] end
end
local lines = redis.call('XRANGE', KEYS[1], '(' .. from, '+', 'COUNT', ARGV[3])
return {redis.call('GET', KEYS[2]) or '', string.format('%.0f', now), position, settled, lines}
