-- Take a halt's mark away, and count up what tells the workers to look again.
-- KEYS: meta.
redis.call('HDEL', KEYS[1], 'halted')
return redis.call('HINCRBY', KEYS[1], 'resumed', 1)
