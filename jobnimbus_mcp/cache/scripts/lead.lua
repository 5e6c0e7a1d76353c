-- Takes the lease of fetching an entry, which is `<token>|<digest of the generations>|<newest of them>|<1 when somebody
-- follows>`, or after a failure `!<failures>|<until us>`.
-- KEYS  1 lease, 2 entry, 3 floors
-- ARGV  1 token, 2 vector, 3 guard, 4 etag of the entry to be replaced ('' none), 5 first byte of the format,
--       6 life of the lease in ms, 7 '1' tell of a failure a short while ago, 8 life of a floor in s
-- Reply {0 led, failures, {floor, version, age in us, ...}}, {1 follow, PTTL of the lease},
--       {2 an entry of these generations is there}, {3 throttled, ms until the next try}
local head = redis.pcall('GETRANGE', KEYS[2], 0, 47 + #ARGV[2])
if type(head) == 'string' and #head >= 48 and string.byte(head, 1) == tonumber(ARGV[5]) then
    local _, _, high, low = string.byte(head, 1, 4)
    if high * 256 + low == #ARGV[2] and string.sub(head, 49) == ARGV[2] and ARGV[4] ~= '*'
        and string.sub(head, 21, 36) ~= ARGV[4] then
        return {2}
    end
end

local newest = tonumber(string.match(ARGV[3], '^%d+') or '0')
for line in string.gmatch(ARGV[2], '[^\n]+') do
    newest = math.max(newest, tonumber(string.match(line, '^%d+') or '0'))
end
local digest = redis.sha1hex(ARGV[2] .. '\n' .. ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local failures, followed = 0, '0'
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'string' then
    local token, of, top, follows = string.match(held, '^(.*)|(%x+)|(%d+)|([01])$')
    local failed, till = string.match(held, '^!(%d+)|(%d+)$')
    -- Newer generations are followed as well: what is fetched under them is new enough, and is looked up again anyway.
    if token and token ~= ARGV[1] and (of == digest or tonumber(top) > newest) then
        if follows == '0' then redis.call('SET', KEYS[1], string.sub(held, 1, -2) .. '1', 'KEEPTTL') end
        return {1, redis.call('PTTL', KEYS[1])}
    elseif token then
        -- Whoever follows the one that is taken over is woken by this one.
        followed = follows
    elseif failed then
        failures = tonumber(failed)
        if ARGV[7] == '1' and now < tonumber(till) then return {3, math.ceil((tonumber(till) - now) / 1000)} end
    end
end
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. digest .. '|' .. string.format('%.0f', newest) .. '|' .. followed, 'PX',
    ARGV[6])

local floors = {}
local flat = redis.pcall('HGETALL', KEYS[3])
local oldest = now - tonumber(ARGV[8]) * 1000000
for i = 1, #flat, 2 do
    local version, told = string.match(flat[i + 1], '^(%d+)|(%d+)$')
    if told and tonumber(told) >= oldest then
        floors[#floors + 1] = flat[i]
        floors[#floors + 1] = version
        floors[#floors + 1] = string.format('%.0f', math.max(0, now - tonumber(told)))
    end
end
return {0, failures, floors}
