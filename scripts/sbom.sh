#!/usr/bin/env bash
# Writes what the released binary is made of: CycloneDX, JSON, of the dependencies that are in it.
#
#   scripts/sbom.sh <file>
set -euo pipefail
cd "$(dirname "$0")/.."

file=${1:?the file is missing, such as clerk-authz.cdx.json}
CYCLONEDX=0.5.9
if [ "$(.tools/bin/cargo-cyclonedx cyclonedx --version 2>/dev/null)" != "cargo-cyclonedx-cyclonedx $CYCLONEDX" ]; then
  echo "sbom: cargo-cyclonedx into .tools (once; a minute)" >&2
  cargo install cargo-cyclonedx --version "$CYCLONEDX" --locked --quiet --root .tools
fi
# It writes beside Cargo.toml, and with this no time and no serial number, so that it can be repeated. It
# takes optional crates for there (`ring`, which is not in the binary): more rather than less. On arm64 there
# is one crate less (`core_detect`).
export SOURCE_DATE_EPOCH=0
.tools/bin/cargo-cyclonedx cyclonedx --quiet --format json --spec-version 1.5 --no-default-features \
  --target x86_64-unknown-linux-gnu --no-build-deps --override-filename clerk-authz-sbom
# No path of this machine is in it.
sed "s|path+file://$PWD|path+file:///clerk-authz|g" clerk-authz-sbom.json > "$file"
rm clerk-authz-sbom.json
echo "sbom: $(grep -c '"type": "library"' "$file") libraries in $file" >&2
