-- Write a batch's profiles and move the applied offset, or do nothing.
-- KEYS: meta, one key a profile. ARGV: owner, expected ('' for none), target, one value a profile.
-- All checks come before the first write, since a script that fails half-way is not rolled back.
local there = redis.call('HMGET', KEYS[1], 'owner', 'applied')
if not there[1] then return 'MOVED' end
if there[1] ~= ARGV[1] then return 'FENCED' end
local applied = there[2] or ''
if applied ~= ARGV[2] then
  -- Only this owner writes under its token, so its target standing there means that its answer was lost.
  if applied == ARGV[3] then return 'APPLIED' end
  return 'MOVED'
end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i + 2])
end
redis.call('HSET', KEYS[1], 'applied', ARGV[3])
return 'APPLIED'
