-- Mark a partition as halted: whoever has claimed it is fenced, and nobody can claim it.
-- KEYS: meta, profiles. ARGV: reason, '1' to forget the profiles and whose they were.
redis.call('HSET', KEYS[1], 'halted', ARGV[1], 'owner', 'nobody')
if ARGV[2] == '1' then
  redis.call('HDEL', KEYS[1], 'applied', 'folded_until_ms', 'begins_ms', 'topic_id', 'partitions', 'layout', 'attempt', 'poison', 'errors', 'process')
  redis.call('HSET', KEYS[1], 'profiles', 0)
  redis.call('UNLINK', KEYS[2])
end
return 'HALTED'
