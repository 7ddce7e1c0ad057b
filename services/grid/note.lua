-- Set or take away fields of a partition's meta, if this claim still stands.
-- KEYS: meta. ARGV: owner, then field and value in turn; an empty value takes the field away.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 'FENCED' end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i]) else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 'APPLIED'
