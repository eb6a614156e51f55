#!/usr/bin/env bash
# Measures what a request costs through the real Envoy, with the release binary beside it and with others;
# prints two tables. Loopback only, bounded, some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

LOAD_ENVOY=$(echo "$PWD"/.venv/lib/python3*/site-packages/envoy/_bin/envoy)
if [ ! -x "$LOAD_ENVOY" ]; then
  echo "envoy-cost: Envoy is missing from .venv: run \`make setup\`" >&2
  exit 1
fi
export LOAD_ENVOY
LOAD_ONLY=envoy exec scripts/load.sh
