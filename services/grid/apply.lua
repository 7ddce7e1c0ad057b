-- Write a batch's profiles and move the applied offset, or do nothing.
-- KEYS: meta, profiles, changes. ARGV: owner, expected ('' for none), target, newest event time ('' for none), how many changes are
-- remembered for those who keep copies ('0' where nobody does), then card and profile in turn.
-- All checks come before the first write, since a script that fails half-way is not rolled back; the offset comes last.
local there = redis.call('HMGET', KEYS[1], 'owner', 'applied', 'profiles', 'folded_until_ms', 'changes')
if not there[1] then return 'MOVED' end
if there[1] ~= ARGV[1] then return 'FENCED' end
local applied = there[2] or ''
if redis.call('HLEN', KEYS[2]) ~= tonumber(there[3] or 0) then return 'MOVED' end
if applied ~= ARGV[2] then
  -- Only this owner writes under its token, so its target standing there means that its answer was lost.
  if applied == ARGV[3] then return 'APPLIED' end
  return 'MOVED'
end
for i = 6, #ARGV, 1000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
local count = (#ARGV - 5) / 2
if ARGV[5] ~= '0' and there[5] then
  -- A claim begins with an empty stream, so the ids ascend.
  local before = redis.call('HINCRBY', KEYS[1], 'changes', count) - count
  for i = 1, count do
    local id = string.format('0-%d', before + i)
    redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[5], id, 'k', ARGV[4 + 2 * i], 'v', ARGV[5 + 2 * i])
  end
elseif there[5] and count > 0 then
  redis.call('HDEL', KEYS[1], 'changes')
end
if ARGV[4] ~= '' and tonumber(ARGV[4]) > tonumber(there[4] or '-1') then
  redis.call('HSET', KEYS[1], 'folded_until_ms', ARGV[4])
end
redis.call('HSET', KEYS[1], 'applied', ARGV[3], 'profiles', redis.call('HLEN', KEYS[2]))
return 'APPLIED'
