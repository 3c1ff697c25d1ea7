#!/usr/bin/env bash
# The program under requests that a fuzzer makes of /openapi.json (Schemathesis): no 5xx but 503, and every
# answer as documented. tests/services/schemathesis.toml says what is looked at.
#
#   usage: fuzz_api.sh PROGRAM SCHEMATHESIS SECONDS [OPTION…]   options go to `schemathesis run`
#
# Without the fuzzer it says nothing and succeeds: `.ci/services missing` names what was not tested.
set -euo pipefail
program=$(realpath "$1") fuzzer=$2 seconds=$3
shift 3
[ -x "$fuzzer" ] || exit 0
services=$(realpath "$(dirname "$0")/services")
export SCHEMATHESIS_HOOKS=$services/schemathesis_hooks.py PYTHONDONTWRITEBYTECODE=1
folder=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
cd "$folder"

cat >config.json <<'JSON'
{"ListenHTTP": "127.0.0.1:0", "ListenHTTPS": "", "UseLocalTLS": false, "DataDirectory": "data",
 "JournalSegmentBytes": "4MiB", "RateLimitPerSecond": 1000000, "Domains": ["example.com"],
 "StaticDirectory": "static"}
JSON
mkdir -p static/folder
seq 1000 >static/folder/numbers.txt
account=maker:$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
echo "${account#*:}" | "$program" account add "${account%%:*}" --password-stdin --config config.json >said 2>log
"$program" config.json >said 2>log &
server=$!
for _ in $(seq 600); do
    url=$(grep -om1 'http://127\.0\.0\.1:[0-9]*' said || true)
    [ -z "$url" ] || break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
[ -n "$url" ] || { echo "fuzz: the program does not listen" >&2; cat said log >&2; exit 1; }

echo "fuzz: $url/openapi.json for about $seconds seconds"
# One worker: CPython before 3.12 loses count of its own recursion when threads parse (a SystemError).
status=0
timeout $((seconds + 240)) "$fuzzer" --config-file "$services/schemathesis.toml" run "$url/openapi.json" \
    --max-time "$seconds" --workers 1 --no-color --auth "$account" "$@" >report 2>&1 || status=$?
if [ "$status" != 0 ]; then
    cat report >&2
    tail -n 20 log >&2
    exit 1
fi
tail -n 12 report

# A panic is a 500 and was seen above; one outside of a request only shows here.
if grep -q panicked log; then
    grep -A 5 panicked log >&2
    exit 1
fi
kill "$server"
wait "$server" || { echo "fuzz: the program did not stop well" >&2; tail -n 20 log >&2; exit 1; }
server=
