-- The newest lines of the log that people are shown, newest first: those with an event's id.
-- KEYS  1 log
-- ARGV  1 position of the oldest one wanted, 2 most
-- Reply one {position, {field, value, ...}} per line
local rows, most = {}, tonumber(ARGV[2])
local newest = '+'
while #rows < most do
    local lines = redis.call('XREVRANGE', KEYS[1], newest, ARGV[1], 'COUNT', 500)
    for _, line in ipairs(lines) do
        for i = 1, #line[2], 2 do
            if line[2][i] == 'id' and #rows < most then
                rows[#rows + 1] = line
                break
            end
        end
    end
    if #lines < 500 then break end
    newest = '(' .. lines[500][1]
end
return rows
