-- What is believed of a proxy in front. X-Forwarded-For was evaluated before; what the client sent of it, and whether it
-- is appended to, is told in headers of our own, which nobody else can send.

-- The host that the proxy in front was asked for; nil where it says nothing usable.
local function forwarded_host(text)
  for _, name in ipairs({ "^[%w._-]+", "^%[[%x:.]+%]" }) do
    local _, stop = text:find(name)
    if stop then
      local _, port = text:find("^:%d%d?%d?%d?%d?", stop + 1)
      local after = text:sub((port or stop) + 1, (port or stop) + 1)
      if after == "" or after == " " or after == "," then return text:sub(1, port or stop) end
    end
  end
end

local SCHEMES = { http = true, https = true, ws = true, wss = true }

function FORWARDED(handle, headers)
  local host = headers:get("x-forwarded-host")
  host = host and forwarded_host(host)
  if host then headers:replace("x-forwarded-host", host) else headers:remove("x-forwarded-host") end
  local port = headers:get("x-forwarded-port")
  if port and not port:find("^%d%d?%d?%d?%d?$") then headers:remove("x-forwarded-port") end
  if not SCHEMES[headers:get("x-forwarded-proto")] then
    headers:replace("x-forwarded-proto", handle:streamInfo():downstreamSslConnection() and "https" or "http")
    handle:clearRouteCache()
  end
  local brought = headers:get("x-coxswain-forwarded-for")
  if brought and brought ~= "" then headers:replace("x-coxswain-forwarded-for", brought .. ", ") end
  return host
end
