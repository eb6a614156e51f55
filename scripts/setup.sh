#!/usr/bin/env bash
# Installs what building and testing need, into folders of the project (.venv, node_modules) and
# into the package caches of Cargo, Go and Maven. Quick when everything is there. Most of it is waiting
# for the network: what does not need the other is done beside it.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=$(mktemp)
trap 'rm -f "$missing"' EXIT
need() { # TOOL, what it is for, how to get it
  if command -v "$1" >/dev/null 2>&1; then return 0; fi
  echo "setup: $1 is missing ($2). Get it: $3"
  echo "$1" >> "$missing"
  return 1
}

# macOS has no sha256sum; both print the same.
sum() { if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi; }

# A folder is up to date when its mark holds the hash of what it was installed from.
fresh() { [ -f "$1" ] && [ "$(cat "$1")" = "$(cat "${@:2}" | sum)" ]; }
mark() { cat "${@:2}" | sum > "$1"; }

rust_crates() {
  need cargo "building" "https://rustup.rs" || return 0
  echo "setup: Rust dependencies"
  cargo fetch --locked --quiet
}

python_packages() {
  need python3 "tests through Python, grpcurl, PostgreSQL for the store, Envoy, Caddy, kubectl, helm" \
    "your distribution's python3 and python3-venv" || return 0
  if ! fresh .venv/.installed requirements.txt; then
    echo "setup: Python packages into .venv"
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    mark .venv/.installed requirements.txt
  fi
  protos=(proto/clerkauthz/v1/*.proto proto/google/rpc/*.proto)
  if ! fresh examples/python/gen/.generated "${protos[@]}"; then
    echo "setup: Python stubs into examples/python/gen"
    rm -rf examples/python/gen && mkdir -p examples/python/gen
    .venv/bin/python -m grpc_tools.protoc -I proto \
      --python_out=examples/python/gen --grpc_python_out=examples/python/gen "${protos[@]}"
    mark examples/python/gen/.generated "${protos[@]}"
  fi
}

npm_packages() {
  need npm "the SDK to compare with, proto lint, the Node example" "https://nodejs.org, 20 or later" || return 0
  # One package with an exact version and no dependencies but its own binaries.
  if ! fresh node_modules/.installed package.json; then
    echo "setup: npm packages into node_modules"
    npm install --silent --no-audit --no-fund --no-package-lock
    mark node_modules/.installed package.json
  fi
  for folder in conformance examples/node tests/browser; do
    if ! fresh "$folder/node_modules/.installed" "$folder/package-lock.json"; then
      echo "setup: npm packages into $folder/node_modules"
      (cd "$folder" && npm ci --silent --no-audit --no-fund)
      mark "$folder/node_modules/.installed" "$folder/package-lock.json"
    fi
  done
}

# After Python: the protobuf compiler comes from there.
go_example() {
  need go "the Go example, actionlint, the schemas that others publish as Go modules" "https://go.dev/dl" || return 0
  local sources=(examples/go/go.sum examples/go/main.go examples/go/watch/main.go examples/go/assertion/main.go
    tests/it/envoy/call.go
    proto/clerkauthz/v1/*.proto)
  if [ ! -x .venv/bin/python ]; then
    echo "setup: the Go example is left out: its stubs are made by the protobuf compiler in .venv, which takes python3"
    echo "the Go example" >> "$missing"
  elif ! fresh examples/go/gen/.generated "${sources[@]}"; then
    echo "setup: Go plugins into .tools/go, Go stubs into examples/go/gen"
    mkdir -p .tools/go
    (cd examples/go && GOBIN="$PWD/../../.tools/go" GOFLAGS=-mod=readonly go install \
      google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc)
    rm -rf examples/go/gen && mkdir -p examples/go/gen
    here=example.com/clerk-authz-example/gen/clerkauthz/v1
    options=()
    for proto in proto/clerkauthz/v1/*.proto; do
      options+=("--go_opt=M${proto#proto/}=$here;clerkauthzv1" "--go-grpc_opt=M${proto#proto/}=$here;clerkauthzv1")
    done
    PATH="$PWD/.tools/go:$PATH" .venv/bin/python -m grpc_tools.protoc -I proto \
      --go_out=examples/go/gen --go_opt=module=example.com/clerk-authz-example/gen \
      --go-grpc_out=examples/go/gen --go-grpc_opt=module=example.com/clerk-authz-example/gen \
      "${options[@]}" proto/clerkauthz/v1/*.proto
    (cd examples/go && go build -o ../../.tools/go/example . && go build -o ../../.tools/go/watch ./watch \
      && go build -o ../../.tools/go/assertion ./assertion \
      && go build -o ../../.tools/go/call ../../tests/it/envoy/call.go)
    mark examples/go/gen/.generated "${sources[@]}"
  fi
}

# Helm renders the chart; from source only where Python has no package of it for the machine. actionlint reads the
# workflows.
HELM=v3.17.3 ACTIONLINT=v1.7.12
go_tools() {
  [ "$(cat .tools/bin/.installed 2>/dev/null)" != "$HELM $ACTIONLINT" ] || return 0
  mkdir -p .tools/bin
  rm -f .tools/bin/helm
  if [ -x .venv/bin/helm ]; then
    ln -sf ../../.venv/bin/helm .tools/bin/helm
  fi
  command -v go >/dev/null 2>&1 || return 0 # said above
  if [ ! -x .venv/bin/helm ]; then
    echo "setup: helm into .tools (once; some minutes)"
    GOBIN="$PWD/.tools/bin" go install -trimpath -ldflags='-s -w' "helm.sh/helm/v3/cmd/helm@$HELM"
  fi
  echo "setup: actionlint into .tools"
  GOBIN="$PWD/.tools/bin" go install -trimpath "github.com/rhysd/actionlint/cmd/actionlint@$ACTIONLINT"
  echo "$HELM $ACTIONLINT" > .tools/bin/.installed
}

# What Istio and Envoy Gateway publish of their resources' form, to hold deploy/istio and
# deploy/envoy-gateway to.
ISTIO=istio.io/api@v1.31.4
GATEWAY=github.com/envoyproxy/gateway@v1.9.1
mesh_schemas() {
  command -v go >/dev/null 2>&1 && [ -x .venv/bin/python ] || return 0
  [ "$(cat .tools/meshes/.fetched 2>/dev/null)" != "$ISTIO $GATEWAY" ] || return 0
  echo "setup: schemas of Istio and Envoy Gateway into .tools/meshes"
  rm -rf .tools/meshes && mkdir -p .tools/meshes
  module() { (cd .tools/meshes && go mod download -json "$1" | sed -nE 's/^\t"Dir": "(.*)",$/\1/p'); }
  local from
  from=$(module "$ISTIO")
  cp "$from/kubernetes/customresourcedefinitions.gen.yaml" .tools/meshes/istio.yaml
  .venv/bin/python -m grpc_tools.protoc -I "$from" -I "$from/common-protos" --include_imports \
    --descriptor_set_out=.tools/meshes/mesh-config.binpb mesh/v1alpha1/config.proto
  from=$(module "$GATEWAY")/charts/gateway-helm/charts/crds/crds
  cp "$from/gatewayapi-crds.yaml" .tools/meshes/gateway-api.yaml
  for kind in securitypolicies clienttrafficpolicies; do
    cp "$from/generated/gateway.envoyproxy.io_$kind.yaml" ".tools/meshes/$kind.yaml"
  done
  chmod -R u+w .tools/meshes
  echo "$ISTIO $GATEWAY" > .tools/meshes/.fetched
}

# The same of the Prometheus Operator, for what deploy/helm and deploy/kustomize have for it.
OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.85.0
operator_schemas() {
  command -v go >/dev/null 2>&1 || return 0
  [ "$(cat .tools/operator/.fetched 2>/dev/null)" != "$OPERATOR" ] || return 0
  echo "setup: schemas of the Prometheus Operator into .tools/operator"
  rm -rf .tools/operator && mkdir -p .tools/operator
  local from
  from=$(cd .tools/operator && go mod download -json "$OPERATOR" | sed -nE 's/^\t"Dir": "(.*)",$/\1/p')
  for kind in servicemonitors prometheusrules; do
    cp "$from/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" ".tools/operator/$kind.yaml"
  done
  chmod -R u+w .tools/operator
  echo "$OPERATOR" > .tools/operator/.fetched
}

java_example() {
  need mvn "the Java example" "https://maven.apache.org, with a JDK 17 or later" || return 0
  local sources=(examples/java/pom.xml examples/java/src/main/java/example/*.java proto/clerkauthz/v1/*.proto)
  if ! fresh examples/java/target/.built "${sources[@]}"; then
    echo "setup: the Java example into examples/java/target"
    (cd examples/java && mvn --quiet --batch-mode -DskipTests package)
    mark examples/java/target/.built "${sources[@]}"
  fi
}

# Unpacked, not installed: nothing of the machine changes, and no service starts.
unpack() { # FOLDER, a file in it, the PROGRAM, what is skipped without it, PACKAGES of the distribution
  local folder=$1 file=$2 program=$3 skipped=$4
  shift 4
  if [ ! -e "$folder/$file" ] && command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1; then
    echo "setup: the distribution's ${program##*/} into $folder"
    rm -rf "$folder" && mkdir -p "$folder"
    download() { (cd "$folder" && apt-get download -qq "$@" >/dev/null 2>&1); }
    if download "$@" || { apt-get update -qq >/dev/null 2>&1 && download "$@"; }; then
      for package in "$folder"/*.deb; do dpkg -x "$package" "$folder"; done
    fi
  fi
  [ -x "$folder/$program" ] || command -v "${program##*/}" >/dev/null 2>&1 \
    || echo "setup: ${program##*/} is missing: $skipped is skipped"
}

# A browser has too many parts to be unpacked. A machine of CI's gets one installed, others are asked to.
has_browser() { [ -n "${CHROMIUM:-}" ] || command -v chromium || command -v chromium-browser || command -v google-chrome; }
browser() {
  if ! has_browser >/dev/null && [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "setup: the distribution's chromium"
    install_chromium() { DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -qq chromium >/dev/null 2>&1; }
    install_chromium || { apt-get update -qq >/dev/null 2>&1 && install_chromium; } || true
  fi
  has_browser >/dev/null || echo "setup: chromium is missing: the test in a browser is skipped. Get it: apt-get install chromium"
}

# One after the other: the distribution's installer takes one at a time.
distribution() {
  unpack .nginx usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so usr/sbin/nginx \
    "the test with it" nginx libnginx-mod-http-headers-more-filter
  unpack .prometheus usr/bin/promtool usr/bin/promtool "the check of metrics and alerts" prometheus
  browser
}

jobs=()
beside() { "$@" & jobs+=("$!"); }
failed=0
beside rust_crates
beside npm_packages
beside java_example
beside distribution
# Their order is that in which they need each other.
beside eval 'python_packages; go_example; go_tools; mesh_schemas; operator_schemas'
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
[ "$failed" -eq 0 ] || { echo "setup: failed, as it says above"; exit 1; }

if [ -s "$missing" ]; then
  echo "setup: done, without: $(sort -u "$missing" | paste -sd ' ')"
else
  echo "setup: done"
fi
