#!/usr/bin/env bash
# Builds the binary as it is released: static, without the offline Clerk, and the same to the byte
# wherever the repository stands. Prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/static
target=$(rustc -vV | sed -n 's/^host: //p')
case $target in
  *-linux-gnu) ;;
  *) echo "build-static: this builds on Linux with glibc's static library (libc6-dev), not on $target" >&2; exit 1 ;;
esac

# No path of this machine gets into the binary: neither of Rust's sources nor of C's.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=. --remap-path-prefix=$cargo_home=/cargo"
export CFLAGS="-ffile-prefix-map=$PWD=. -ffile-prefix-map=$cargo_home=/cargo"
export SOURCE_DATE_EPOCH=0 CARGO_INCREMENTAL=0

# With a target named, build scripts and macros, which run here, stay dynamic.
cargo build --release --locked --no-default-features --bin clerk-authz \
  --target "$target" --target-dir "$folder" >&2
echo "$folder/$target/release/clerk-authz"
