#!/usr/bin/env bash
# Lays out what is in the image, the same to the byte each time: the binary, the roots of TLS, and who
# runs it.
#
#   scripts/image-root.sh <binary> <folder, which must not be there>
set -euo pipefail

binary=$1 root=$2
# Debian's bundle of Mozilla's roots: the service verifies Clerk by it, unless SSL_CERT_FILE names another.
roots=/etc/ssl/certs/ca-certificates.crt

mkdir "$root"
install -D -m 0555 "$binary" "$root/usr/local/bin/clerk-authz"
install -D -m 0444 "$roots" "$root/etc/ssl/certs/ca-certificates.crt"
echo "nonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin" > "$root/etc/passwd"
echo "nonroot:x:65532:" > "$root/etc/group"
# Names are looked up in the hosts file, then by DNS.
echo "hosts: files dns" > "$root/etc/nsswitch.conf"
chmod 0444 "$root/etc/passwd" "$root/etc/group" "$root/etc/nsswitch.conf"
install -d -m 0700 "$root/var/lib/clerk-authz"
chmod 0755 "$root" "$root/etc" "$root/etc/ssl" "$root/etc/ssl/certs" "$root/var" "$root/var/lib" \
  "$root/usr" "$root/usr/local" "$root/usr/local/bin"
chown -R 0:0 "$root"
chown 65532:65532 "$root/var/lib/clerk-authz"
find "$root" -exec touch --no-dereference --date=@0 {} +
