-- Requests from a file, one JSON body a line, from a random place on. With INTERVAL milliseconds, requests are due that
-- far apart, whatever the server does (open loop): evenly, or with ARRIVALS=poisson as if from many independent clients;
-- whichever connection is free takes the next. Without, every connection asks again at once. Prints figures as JSON.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long seconds, nanoseconds; } moment; int clock_gettime(int clock, moment *now); ]]

local interval = tonumber(os.getenv("INTERVAL") or "0")
local poisson = os.getenv("ARRIVALS") == "poisson"
local bodies, place, due, moment = {}, 0, nil, ffi.new("moment")
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end

local function now()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.seconds) * 1e3 + tonumber(moment.nanoseconds) / 1e6
end

function init() math.randomseed(os.time()); place = math.random(#bodies) end

function request()
  place = place % #bodies + 1
  return wrk.format("POST", os.getenv("TARGET"), { ["content-type"] = "application/json" }, bodies[place])
end

if interval > 0 then
  function delay()
    local gap = poisson and -interval * math.log(1 - math.random()) or interval
    due = (due or now()) + gap
    return math.max(0, math.floor(due - now() + 0.5))
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests_per_second": %.2f, "p50_ms": %.3f, "p99_ms": %.3f, "requests": %d, "failed": %d}\n',
    1e6 * summary.requests / summary.duration, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
