-- Take a halt's mark away, and count up what tells the workers to look again.
-- KEYS: meta. ARGV: the offset before which bad records are accepted.
redis.call('HDEL', KEYS[1], 'halted')
redis.call('HSET', KEYS[1], 'accepted', ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'resumed', 1)
