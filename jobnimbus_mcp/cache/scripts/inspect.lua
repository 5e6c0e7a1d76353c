-- One entry's start, life and size, valid or not.
-- KEYS  1 entry
-- ARGV  1 bytes wanted of its start
-- Reply {start, PTTL, size}; {} when there is none
local head = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1] - 1)
if type(head) ~= 'string' or #head == 0 then return {} end
return {head, redis.call('PTTL', KEYS[1]), redis.call('STRLEN', KEYS[1])}
