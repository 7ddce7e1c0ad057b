-- Write a batch's profiles and move the applied offset, or do nothing.
-- KEYS: meta, profiles. ARGV: owner, expected ('' for none), target, newest event time ('' for none), then card and profile in turn.
-- All checks come before the first write, since a script that fails half-way is not rolled back; the offset comes last.
local there = redis.call('HMGET', KEYS[1], 'owner', 'applied', 'profiles', 'folded_until_ms')
if not there[1] then return 'MOVED' end
if there[1] ~= ARGV[1] then return 'FENCED' end
local applied = there[2] or ''
if redis.call('HLEN', KEYS[2]) ~= tonumber(there[3] or 0) then return 'MOVED' end
if applied ~= ARGV[2] then
  -- Only this owner writes under its token, so its target standing there means that its answer was lost.
  if applied == ARGV[3] then return 'APPLIED' end
  return 'MOVED'
end
for i = 5, #ARGV, 1000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
if ARGV[4] ~= '' and tonumber(ARGV[4]) > tonumber(there[4] or '-1') then
  redis.call('HSET', KEYS[1], 'folded_until_ms', ARGV[4])
end
redis.call('HSET', KEYS[1], 'applied', ARGV[3], 'profiles', redis.call('HLEN', KEYS[2]))
return 'APPLIED'
