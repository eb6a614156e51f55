#!/usr/bin/env bash
# Writes what the released binary of an architecture is made of: CycloneDX, JSON, of the dependencies that
# are in it. It needs no machine of that architecture.
#
#   scripts/sbom.sh <amd64|arm64> <file>
set -euo pipefail
cd "$(dirname "$0")/.."

architecture=${1:?the architecture is missing: amd64 or arm64}
file=${2:?the file is missing, such as clerk-authz.cdx.json}
# As the image's are called, and what Rust calls them.
case $architecture in
  amd64) target=x86_64-unknown-linux-gnu ;;
  arm64) target=aarch64-unknown-linux-gnu ;;
  *) echo "sbom: \"$architecture\" is no architecture of a release; expected amd64 or arm64" >&2; exit 2 ;;
esac
CYCLONEDX=0.5.9
if [ "$(.tools/bin/cargo-cyclonedx cyclonedx --version 2>/dev/null)" != "cargo-cyclonedx-cyclonedx $CYCLONEDX" ]; then
  echo "sbom: cargo-cyclonedx into .tools (once; a minute)" >&2
  cargo install cargo-cyclonedx --version "$CYCLONEDX" --locked --quiet --root .tools
fi
# It writes beside Cargo.toml, and with this no time and no serial number, so that it can be repeated. It
# takes optional crates for there (`ring`, which is not in the binary): more rather than less.
export SOURCE_DATE_EPOCH=0
.tools/bin/cargo-cyclonedx cyclonedx --quiet --format json --spec-version 1.5 --no-default-features \
  --target "$target" --no-build-deps --override-filename clerk-authz-sbom
# No path of this machine is in it.
sed "s|path+file://$PWD|path+file:///clerk-authz|g" clerk-authz-sbom.json > "$file"
rm clerk-authz-sbom.json
echo "sbom: $(grep -c '"type": "library"' "$file") libraries in $file" >&2
