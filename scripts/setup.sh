#!/usr/bin/env bash
# Installs what building and testing need, into folders of the project (.venv, node_modules) and
# into the package caches of Cargo, Go and Maven. Quick when everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { # TOOL, what it is for, how to get it
  if command -v "$1" >/dev/null 2>&1; then return 0; fi
  echo "setup: $1 is missing ($2). Get it: $3"
  missing+=("$1")
  return 1
}

# A folder is up to date when its mark holds the hash of what it was installed from.
fresh() { [ -f "$1" ] && [ "$(cat "$1")" = "$(cat "${@:2}" | sha256sum)" ]; }
mark() { cat "${@:2}" | sha256sum > "$1"; }

if need cargo "building" "https://rustup.rs"; then
  echo "setup: Rust dependencies"
  cargo fetch --locked --quiet
fi

if need python3 "tests through Python, grpcurl" "your distribution's python3 and python3-venv"; then
  if ! fresh .venv/.installed requirements.txt; then
    echo "setup: Python packages into .venv"
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    mark .venv/.installed requirements.txt
  fi
fi

if need npm "the SDK to compare with, proto lint, the Node example" "https://nodejs.org, 20 or later"; then
  for folder in . conformance examples/node; do
    if ! fresh "$folder/node_modules/.installed" "$folder/package-lock.json"; then
      echo "setup: npm packages into $folder/node_modules"
      (cd "$folder" && npm ci --silent --no-audit --no-fund)
      mark "$folder/node_modules/.installed" "$folder/package-lock.json"
    fi
  done
fi

if need go "the Go example" "https://go.dev/dl"; then
  if ! fresh .tools/go/.installed examples/go/go.sum; then
    echo "setup: Go plugins into .tools/go"
    mkdir -p .tools/go
    (cd examples/go && go mod download && GOBIN="$PWD/../../.tools/go" \
      go install google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc)
    mark .tools/go/.installed examples/go/go.sum
  fi
fi

if need mvn "the Java example" "https://maven.apache.org, with a JDK 17 or later"; then
  if ! fresh .tools/java.installed examples/java/pom.xml; then
    echo "setup: Maven packages"
    mkdir -p .tools
    (cd examples/java && mvn --quiet --batch-mode -DskipTests package)
    mark .tools/java.installed examples/java/pom.xml
  fi
fi

if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: done, without: ${missing[*]}"
else
  echo "setup: done"
fi
