#!/usr/bin/env bash
# Measures the release binary while it reconciles 100,000 users; prints a table. Loopback only, some
# minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "reconcile-cost: building the binary as it is released"
cargo build --release --locked --no-default-features --quiet
cp target/release/clerk-authz target/clerk-authz-load
export LOAD_BINARY="$PWD/target/clerk-authz-load"
exec cargo test --locked --test it --quiet -- reconcile::cost --ignored --nocapture
