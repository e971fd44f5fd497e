"""The Lua scripts of the Redis transport: each is one step, which no killed process can leave half done.

Three rules hold in all of them. What could fail (a key of the wrong type) comes before what takes a message away, as
Redis does not roll a script back. A message is copied as it is and never re-encoded. And the first write is one that
frees memory, even if only in theory: a Redis that has reached ``maxmemory`` refuses any other *first* write, and
workers could then not even empty the queues.

The bell of a queue is a list of at most one element, on which idle consumers wait. Each message rung for wakes one of
them; they wake by themselves every second, so that a lost ring (or a message of a producer that knows no bells) costs
a second at most. That is also why a bell needs no more than a short life.
"""

RING = """
local function ring(bell, milliseconds)
  if redis.call('EXISTS', bell) == 0 then
    redis.call('LPUSH', bell, 1)
    redis.call('PEXPIRE', bell, milliseconds)
  end
end
"""

#: Ring for a message that was sent by other means. KEYS: bell. ARGV: the bell's life.
ONLY_RING = f"{RING} ring(KEYS[1], ARGV[1])"

#: Send a message and ring. KEYS: list, bell. ARGV: message, the bell's life.
PUT = f"""{RING}
redis.call('LPUSH', KEYS[1], ARGV[1])
ring(KEYS[2], ARGV[2])
"""

#: Take the next message and record it as unacknowledged; returns the number of its queue and the message, or nothing.
#: KEYS: unacked, its index, the bells of n queues, then the n lists of each priority, the most urgent first.
#: ARGV: delivery tag, time, the bell's life, n, and the end of each queue's record ('': take it without a record).
#: A tag that is known is a client's second attempt, whose first one came through: it gets the same message again.
#: (Only basic_get's client makes second attempts, and that asks for one queue.) Where more messages wait, the bell is
#: rung for the next consumer, as one ring may have announced many of them.
CLAIM = f"""{RING}
local again = redis.call('HGET', KEYS[1], ARGV[1])
if again then
  return {{1, string.sub(again, 2, -#ARGV[5] - 1)}}
end
local n = tonumber(ARGV[4])
for i = 3 + n, #KEYS do
  local message = redis.call('LINDEX', KEYS[i], -1)
  if message then
    local queue = (i - 3) % n + 1
    local ending = ARGV[4 + queue]
    redis.call('ZREM', KEYS[2], ARGV[1])
    if ending ~= '' then
      redis.call('HSET', KEYS[1], ARGV[1], '[' .. message .. ending)
      redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
    end
    redis.call('RPOP', KEYS[i])
    if redis.call('EXISTS', KEYS[i]) == 1 then
      ring(KEYS[2 + queue], ARGV[3])
    end
    return {{queue, message}}
  end
end
return false
"""

#: Put an unacknowledged message into lists, unless it was settled meanwhile; returns whether it was moved.
#: KEYS: unacked, its index, then list and bell of each (a single list may lack the bell).
#: ARGV: delivery tag, LPUSH or RPUSH, the bell's life, message.
MOVE = f"""{RING}
local there = redis.call('HEXISTS', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[1], '')
if there == 1 then
  for i = 3, #KEYS, 2 do
    redis.call(ARGV[2], KEYS[i], ARGV[4])
    if KEYS[i + 1] then
      ring(KEYS[i + 1], ARGV[3])
    end
  end
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('ZREM', KEYS[2], ARGV[1])
return there
"""

#: Delivery tags that were given out before a time, the latest first. KEYS: unacked_index. ARGV: time, how many.
OVERDUE = "return redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '-inf', 'LIMIT', 0, ARGV[2])"

ALL = (CLAIM, MOVE, ONLY_RING, OVERDUE, PUT)
