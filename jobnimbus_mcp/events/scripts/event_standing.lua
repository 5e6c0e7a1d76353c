-- Whether events are still kept for somebody. Writes, or is refused, whether or not there is a token.
-- KEYS  1 token of this store, 2.. hashes of events
-- ARGV  1 token if there is none yet
-- Reply {token with the server process it was told by, 1 or 0 for each event}
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local told = redis.pcall('INFO', 'server')
local run = type(told) == 'string' and string.match(told, 'run_id:(%w+)') or ''
local reply = {redis.call('GET', KEYS[1]) .. '-' .. run}
for k = 2, #KEYS do
    reply[#reply + 1] = tonumber(redis.call('HGET', KEYS[k], 'left') or '0') > 1 and 1 or 0
end
return reply
