#!/usr/bin/env bash
# Imports an access log and compares what was stored: `tests/replay.sh PROGRAM LOG`. A server of its
# own runs in a temporary folder on free ports, so no data of anyone's is touched.
set -euo pipefail

program=$1
log=$2
folder=$(mktemp -d)
server=
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT

# A port that nobody answers at now; the server fails loudly if someone takes it in between.
port=$((20000 + RANDOM % 20000))
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
cat >"$folder/config.json" <<JSON
{
  "ListenHTTP": "127.0.0.1:$port",
  "ListenHTTPS": "",
  "LogFilter": "warn"
}
JSON
"$program" "$folder/config.json" &
server=$!
for _ in $(seq 100); do
    kill -0 "$server" || exit 1
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.1
done
"$program" import --verify --url "http://127.0.0.1:$port" --config "$folder/config.json" "$log"
