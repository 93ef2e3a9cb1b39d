-- What Envoy has no setting for: rules are compared with the path decoded once, without empty elements and dots, and the
-- upstream gets it as it was sent.
--
-- The path is replaced for choosing the route, and put back afterwards. A route says what it needs in its metadata,
-- as words: `redirect` (to https: host without port, path without a slash at its end), `rewrite` (the path is rewritten:
-- it stays decoded, but for what a path cannot hold), `repeat=…` (after what a request is tried again, if it may be).

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

-- What the log tells of a request, as nginx writes it: nothing that could end a quotation or move a terminal's cursor.
local function logged(handle, headers)
  local told = {}
  for _, entry in ipairs(LOGGED) do
    local value = headers:get(entry[2])
    if value then
      told[entry[1]] = value:gsub('[%c"\\\127-\255]', function(byte) return string.format("\\x%02X", byte:byte()) end)
    end
  end
  if next(told) then handle:streamInfo():dynamicMetadata():set("coxswain", "log", told) end
end

local REPEATABLE = { GET = true, HEAD = true, OPTIONS = true, PUT = true, DELETE = true, TRACE = true }

-- Makes Envoy's new id look like nginx's; one that the client sent stays as it is.
local function identify(headers)
  if headers:get("x-coxswain-request-id") then
    headers:remove("x-coxswain-request-id")
  else
    local id = headers:get("x-request-id")
    if id then headers:replace("x-request-id", (id:gsub("-", ""))) end
  end
end

local function forward(handle)
  local headers = handle:headers()
  local target, authority = headers:get(":path"), headers:get(":authority")
  logged(handle, headers)
  if target == nil or authority == nil then return true end
  -- Two of them are joined by a comma.
  if authority:find("[,/?#@\\%s]") then return false end
  identify(headers)
  local path, query = target:match("^([^?]*)(.*)$")
  local escapes = path:find("%", 1, true)
  local plain = path
  if escapes then plain = decoded(path) end
  plain = plain and resolved(plain)
  if not plain then return false end
  if escapes or plain ~= path then
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
    local host = trusted or authority
    headers:replace(":authority", (host:lower():gsub(":%d*$", "")))
    if query == "" and path:sub(-1) == "/" then sent = path:sub(1, -2) end
  end
  if sent ~= headers:get(":path") then headers:replace(":path", sent) end
  if trusted and not words:find("redirect", 1, true) then headers:replace(":authority", trusted) end
  local repeats = words:match("repeat=(%S*)") or "reset"
  if repeats ~= "" and REPEATABLE[headers:get(":method")] then headers:replace("x-envoy-retry-on", repeats) end
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
