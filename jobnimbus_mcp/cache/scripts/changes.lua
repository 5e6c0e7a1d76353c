-- The log's lines after a position, oldest first.
-- KEYS  1 log
-- ARGV  1 position, 2 most
-- Reply one {position, {field, value, ...}} per line
return redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
