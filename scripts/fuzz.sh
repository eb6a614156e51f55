#!/usr/bin/env bash
# Builds the fuzz targets and runs each for SECONDS_EACH seconds, two at a time. libFuzzer wants an
# instrumented build; RUSTC_BOOTSTRAP lets the stable compiler make it.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTC_BOOTSTRAP=1
seconds=${SECONDS_EACH:-60}
targets=(token claims jwks cookie handshake webhook path policy check_request assertion)

# With one unit for all of a crate, as is the default, half of the cores wait for the other half.
options=(--sanitizer none --codegen-units 16)

scripts/setup.sh
# cargo-fuzz is one of the tools there.
export PATH="$PWD/.venv/bin:$PATH"
echo "=== fuzz: building ${targets[*]}"
cargo fuzz build "${options[@]}"

logs=$(mktemp -d)
run() {
  mkdir -p "fuzz/corpus/$1"
  cargo fuzz run "${options[@]}" "$1" "fuzz/corpus/$1" "fuzz/seeds/$1" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 > "$logs/$1" 2>&1
}
passed=0
failed=0
for ((index = 0; index < ${#targets[@]}; index += 2)); do
  pids=()
  for target in "${targets[@]:index:2}"; do
    run "$target" &
    pids+=("$!")
  done
  for offset in "${!pids[@]}"; do
    target=${targets[index + offset]}
    if wait "${pids[offset]}"; then
      passed=$((passed + 1))
      echo "fuzz $target: $(grep -o 'number_of_executed_units: *[0-9]*' "$logs/$target" | grep -o '[0-9]*$') runs in $seconds s, no crash"
    else
      failed=$((failed + 1))
      echo "fuzz $target: FAILED"
      tail -30 "$logs/$target"
    fi
  done
done
rm -rf "$logs"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
