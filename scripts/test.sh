#!/usr/bin/env bash
# Every test suite, each with its closing line, and a summary. Fails when one fails, and in CI when
# one is skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh || exit 1
summary=()
failed=0

# A secret key, a webhook's secret, a private key, a token: in nothing that a suite prints. More of each than in
# tests/it/support/secrets.rs and scripts/running.py, since suites print the names of tests too.
secret='sk_(test|live)_[A-Za-z0-9]{8}|whsec_[A-Za-z0-9+/]{8}|BEGIN [A-Z ]*PRIVATE KEY|eyJ[A-Za-z0-9_-]{8}'

suite() { # NAME, COMMAND…
  local name=$1 log status begun=$SECONDS
  shift
  log=$(mktemp)
  echo "=== $name: $*"
  "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  local closing
  closing=$(grep -E '^test result:|^[0-9]+ passed, [0-9]+ failed' "$log" | tr '\n' ';' | sed 's/;$//')
  local leaks
  leaks=$(grep -cE "$secret" "$log")
  rm -f "$log"
  if [ "$leaks" -ne 0 ]; then
    failed=1
    summary+=("FAILED   $name: secrets in $leaks lines that it printed; ${closing:-no closing line}")
  elif [ "$status" -ne 0 ]; then
    failed=1
    summary+=("FAILED   $name: ${closing:-no closing line}")
  elif [ -z "$closing" ]; then
    failed=1
    summary+=("FAILED   $name: it ran no test")
  else
    summary+=("passed   $name: $closing ($((SECONDS - begun)) s)")
  fi
}

suite "unit tests" cargo test --locked --lib
# The oracle is one of these: it asks Clerk's own SDK, and fails where that is not installed.
# Those that say what they covered, or left out, run by themselves, so that it shows.
telling=(clerk_api::schema::every_operation forward_auth::nginx forward_auth::caddy envoy::grpc envoy::meshes
  telemetry::promtool store_faults::a_full_disk)
# Half of their time tests wait for processes of theirs: two of them for each core.
suite "through the doors, oracle, advisories" \
  cargo test --locked --test it -- --test-threads=$((2 * $(getconf _NPROCESSORS_ONLN))) "${telling[@]/#/--skip=}"
suite "schemas of Clerk's, nginx, Caddy, gRPC behind Envoy, meshes, promtool" \
  cargo test --locked --test it -- --nocapture "${telling[@]}"
suite "examples in the documentation" cargo test --locked --doc
suite "without the offline Clerk" cargo test --locked --no-default-features --lib
# With the features that tests ask of the dependencies: otherwise most of these were built once more.
cargo build --locked --quiet --bins --test it || exit 1
if [ -x .venv/bin/python ]; then
  suite "other languages" .venv/bin/python tests/languages/run.py target/debug/clerk-authz
  suite "the demos" .venv/bin/python tests/languages/demos.py target/debug/clerk-authz
  suite "browser" node tests/browser/handshake.mjs target/debug/clerk-authz
  suite "Clerk's own clients" .venv/bin/python tests/strangers/run.py target/debug/clerk-authz
  suite "the manifests" .venv/bin/python tests/deploy/manifests.py target/debug/clerk-authz
  suite "what a release is made of" .venv/bin/python tests/deploy/release.py
  suite "a soak of two minutes" .venv/bin/python scripts/soak.py 2 target/debug/clerk-authz
  suite "the faults under load" \
    .venv/bin/python scripts/faults.py --seconds-each 1 --clerk-down-minutes 0.05 target/debug/clerk-authz
else
  for name in "other languages" "the demos" "browser" "Clerk's own clients" "the manifests" \
    "what a release is made of" "a soak of two minutes" "the faults under load"; do
    summary+=("skipped  $name: Python 3 is missing; install python3 and python3-venv, then \`make setup\`")
  done
  [ "${CI:-}" = true ] && failed=1
fi

echo
echo "=== summary"
printf '%s\n' "${summary[@]}"
exit "$failed"
