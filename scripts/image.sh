#!/usr/bin/env bash
# Builds the image where no base image can be had, and checks it: the static binary is built here, and
# the image by buildah from the last stage of deploy/Dockerfile, as it stands there. Takes root and some
# minutes. Ends with `N passed, M failed`.
#
#   scripts/image.sh [a static binary that is there already]
set -euo pipefail
cd "$(dirname "$0")/.."

# No `skipped` here: who asks for the image wants it.
for tool in buildah unshare; do
  if ! command -v "$tool" >/dev/null 2>&1; then
    echo "image: $tool is missing. Get it: apt-get install buildah util-linux" >&2
    exit 1
  fi
done
if [ "$(id -u)" -ne 0 ]; then
  echo "image: this takes root, for owners and mounts; without it: docker build -f deploy/Dockerfile ." >&2
  exit 1
fi

binary=${1:-$(scripts/build-static.sh)}
name=localhost/clerk-authz:checked
work=$(mktemp -d)
tool() { buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"; }
trap 'tool rm --all >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

mkdir "$work/build"
scripts/image-root.sh "$binary" "$work/build/image"
sed -n '/^FROM scratch/,$p' deploy/Dockerfile > "$work/Dockerfile"

# Docker's format: OCI's has no place for HEALTHCHECK. Without the time, it is the same each time.
tool bud --quiet --isolation chroot --format docker --timestamp 0 \
  --build-context "build=$work/build" --build-arg "GIT_REVISION=$(git rev-parse HEAD)" \
  --file "$work/Dockerfile" --tag "$name" "$work/build" > "$work/id"
echo "image: $(cat "$work/id")"

container=$(tool from "$name")
root=$(tool mount "$container")
tool inspect --type image "$name" > "$work/image.json"
mkdir -p target/image
tool push --quiet "$name" "docker-archive:$work/clerk-authz.tar:clerk-authz:checked"
mv "$work/clerk-authz.tar" target/image/clerk-authz.tar
echo "image: target/image/clerk-authz.tar, for \`docker load\`"

.venv/bin/python tests/deploy/image.py "$root" "$work/image.json" target/image/clerk-authz.tar
