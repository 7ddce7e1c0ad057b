-- Become the only writer of a partition.
-- KEYS: meta, profiles, changes. ARGV: owner, process, topic_id, partitions, layout, '1' to claim even what is halted.
-- Returns {'CLAIMED', epoch, applied or '', process before or '', attempt or '', poison or '', accepted or '0', errors or '', begins_ms or ''}, {'HALTED', reason}, or {'REFUSED', topic_id, partitions, layout} with what is there.
local there = redis.call('HMGET', KEYS[1], 'topic_id', 'partitions', 'layout', 'applied', 'profiles', 'process',
  'attempt', 'poison', 'halted', 'accepted', 'errors', 'begins_ms')
if there[9] and ARGV[6] ~= '1' then return {'HALTED', there[9]} end
if (there[1] and there[1] ~= ARGV[3]) or (there[2] and there[2] ~= ARGV[4]) then
  return {'REFUSED', there[1] or '', there[2] or '0', there[3] or '0'}
end
local applied = there[4] or ''
if applied == '' or there[3] ~= ARGV[5] or redis.call('HLEN', KEYS[2]) ~= tonumber(there[5] or -1) then
  -- Of no known offset, of another layout, or not all there: of no use, only of harm.
  applied = ''
  redis.call('HDEL', KEYS[1], 'applied', 'folded_until_ms', 'begins_ms')
  there[12] = false
  redis.call('HSET', KEYS[1], 'profiles', 0)
  redis.call('UNLINK', KEYS[2])
end
-- What is announced is announced under a claim: copies made before it are of no use.
redis.call('UNLINK', KEYS[3])
redis.call('HSET', KEYS[1], 'changes', 0)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'process', ARGV[2], 'topic_id', ARGV[3], 'partitions', ARGV[4],
  'layout', ARGV[5])
return {'CLAIMED', redis.call('HINCRBY', KEYS[1], 'epoch', 1), applied, there[6] or '', there[7] or '', there[8] or '', there[10] or '0', there[11] or '', there[12] or ''}
