-- Become the only writer of a partition.
-- KEYS: meta. ARGV: owner, topic_id, layout.
-- Returns {'CLAIMED', epoch, applied or ''} or {'REFUSED', topic_id, layout} with what is there.
local there = redis.call('HMGET', KEYS[1], 'topic_id', 'layout', 'applied')
if (there[1] and there[1] ~= ARGV[2]) or (there[2] and there[2] ~= ARGV[3]) then
  return {'REFUSED', there[1] or '', there[2] or ''}
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'topic_id', ARGV[2], 'layout', ARGV[3])
return {'CLAIMED', redis.call('HINCRBY', KEYS[1], 'epoch', 1), there[3] or ''}
