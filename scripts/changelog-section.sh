#!/usr/bin/env bash
# Prints what CHANGELOG.md says of a version, without its heading; fails where it says nothing.
#
#   scripts/changelog-section.sh 0.1.0
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?the version is missing, such as 0.1.0}
section=$(awk -v version="$version" '
  /^## / { is_in = ($2 == version || $2 == "[" version "]"); next }
  is_in
' CHANGELOG.md)
if [ -z "${section//[[:space:]]/}" ]; then
  echo "changelog-section: CHANGELOG.md has no section \"## $version\" with something in it" >&2
  exit 1
fi
echo "$section"
