-- What Envoy has no setting for: rules are compared with the decoded path, and the upstream gets it as it was sent.
--
-- The path is decoded once for choosing the route, and put back afterwards. A route says what it needs in its metadata,
-- as words: `redirect` (to https: host without port, path without a slash at its end), `rewrite` (the path is rewritten:
-- it stays decoded, but for what a path cannot hold), `retry=…` (for methods that may be repeated).

local function escaped(text, what)
  return (text:gsub(what, function(byte) return string.format("%%%02X", byte:byte()) end))
end

-- What nobody can take for the end of a path, nor for an escape.
local function matched(path) return escaped(path, "[%%?#%c]") end

-- What a request line can hold.
local function sendable(path) return escaped(path, "[%c \"#%%<>?\\^`{|}\127-\255]") end

-- The path without escapes; nil for what is no path.
local function decoded(path)
  if path:find("%%%X") or path:find("%%%x%X") or path:find("%%%x?$") then return nil end
  path = path:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
  if path:find("%z") then return nil end
  return path
end

-- The path without empty elements and dots; nil for what leads above the root.
local function resolved(path)
  if not (path:find("//", 1, true) or path:find("/.", 1, true)) then return path end
  local elements = {}
  for element in path:gmatch("[^/]+") do
    if element == ".." then
      if #elements == 0 then return nil end
      elements[#elements] = nil
    elseif element ~= "." then
      elements[#elements + 1] = element
    end
  end
  local last = path:match("[^/]*$")
  local open = #elements > 0 and (last == "" or last == "." or last == "..")
  return "/" .. table.concat(elements, "/") .. (open and "/" or "")
end

local REPEATABLE = { GET = true, HEAD = true, OPTIONS = true, PUT = true, DELETE = true, TRACE = true }

local function forward(handle)
  local headers = handle:headers()
  local target = headers:get(":path")
  if target == nil then return true end
  local path, query = target:match("^([^?]*)(.*)$")
  local plain = path
  if path:find("%", 1, true) then
    plain = decoded(path)
    plain = plain and resolved(plain)
    if plain == nil then return false end
    local compared = matched(plain) .. query
    if compared ~= target then
      headers:replace(":path", compared)
      handle:clearRouteCache()
    end
  end
  local trusted = FORWARDED and FORWARDED(handle, headers)
  local words = handle:metadata():get("words") or ""
  local sent = target
  if words:find("rewrite", 1, true) then
    sent = sendable(plain) .. query
  elseif words:find("redirect", 1, true) then
    local host = trusted or headers:get(":authority")
    headers:replace(":authority", (host:lower():gsub(":%d*$", "")))
    if query == "" and path:sub(-1) == "/" then sent = path:sub(1, -2) end
  end
  if sent ~= headers:get(":path") then headers:replace(":path", sent) end
  if trusted and not words:find("redirect", 1, true) then headers:replace(":authority", trusted) end
  local retry = words:match("retry=(%S+)")
  if retry and REPEATABLE[headers:get(":method")] then headers:replace("x-envoy-retry-on", retry) end
  return true
end

function envoy_on_request(handle)
  local worked, good = pcall(forward, handle)
  if not worked then
    handle:logErr(tostring(good))
    handle:respond({ [":status"] = "500" }, "")
  elseif not good then
    handle:respond({ [":status"] = "400" }, "")
  end
end
