-- Tells messages to whoever listens now.
-- KEYS  1 bus
-- ARGV  1 most that stay, 2 life in s, 3.. messages
-- Reply how many
for i = 3, #ARGV do redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'm', ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return #ARGV - 2
