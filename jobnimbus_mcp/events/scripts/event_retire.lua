-- A consumer is no more; nothing is kept for it any longer.
-- KEYS  1 consumers, 2 what was due for it, 3.. streams
-- ARGV  1 consumer
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[2])
for k = 3, #KEYS do redis.pcall('XGROUP', 'DESTROY', KEYS[k], ARGV[1]) end
return 1
