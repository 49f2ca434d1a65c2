-- Requests from a file, one JSON body a line, from a random place on; pauses of PACE milliseconds on average between an
-- answer and the next request of a connection (exponential, as if they came from many clients); figures as JSON.
local bodies, place, pace = {}, 0, tonumber(os.getenv("PACE") or "0")
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end

function init() math.randomseed(os.time()); place = math.random(#bodies) end

function request()
  place = place % #bodies + 1
  return wrk.format("POST", os.getenv("TARGET"), { ["content-type"] = "application/json" }, bodies[place])
end

if pace > 0 then
  function delay() return math.floor(-pace * math.log(1 - math.random()) + 0.5) end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests_per_second": %.2f, "p50_ms": %.3f, "p99_ms": %.3f, "requests": %d, "failed": %d}\n',
    1e6 * summary.requests / summary.duration, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
