#!/usr/bin/env bash
# Measures the service against an empty call; prints a table. Loopback only, bounded, a few minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in h2load taskset; do
  if ! command -v "$tool" >/dev/null 2>&1; then
    echo "load: $tool is missing. Get it: apt-get install nghttp2-client util-linux" >&2
    exit 1
  fi
done
if [ "$(nproc)" -lt 2 ]; then
  echo "load: two cores are needed, one for the server and one for the clients" >&2
  exit 1
fi
echo "load: building the binary as it is released"
cargo build --release --locked --no-default-features --quiet
cp target/release/clerk-authz target/clerk-authz-load
export LOAD_BINARY="$PWD/target/clerk-authz-load"
cargo bench --locked --bench load --no-run --quiet
exec taskset -c 1 cargo bench --locked --bench load --quiet
