"""Looks at the image, and runs it as an orchestrator would: as its own user, from a read-only root, with
nothing of this machine but the network. `scripts/image.sh` builds it and calls this, as root.

    .venv/bin/python tests/deploy/image.py <unpacked image> <its configuration> <its archive>

Prints `N passed, M failed` last. Ends only the processes that it started.
"""

import base64
import datetime
import http.server
import ipaddress
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

IMAGE, CONFIG, ARCHIVE = (Path(argument).resolve() for argument in sys.argv[1:4])
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "languages"))
from harness import ROOT, check, eventually, free_port, report  # noqa: E402
import harness  # noqa: E402

LIMIT_BYTES = 25 * 1024 * 1024
USER = 65532
BINARY = "usr/local/bin/clerk-authz"
# The names that only the test's own name server knows.
CLERK = "clerk.image-test.example"
NAME_SERVER = "127.0.0.53"
WITHIN_SECONDS = 60
OF_THE_OFFLINE_CLERK = ["/_emulator", "retry_milliseconds", "user_alice"]

# The root becomes read-only, the state's folder a file system of its own; then what follows is run.
ENTER = """
set -eu
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs -o uid=65532,gid=65532,mode=0700 tmpfs "$1/var/lib/clerk-authz"
root=$1; shift
exec chroot --userspec=65532:65532 "$root" /usr/local/bin/clerk-authz "$@"
"""


def inside(root, *arguments):
    """The command that runs the image's binary in `root`, in mounts of its own."""
    return ["unshare", "--mount", "sh", "-c", ENTER, "enter", str(root), *arguments]


def ran(root, *arguments, env=None):
    return subprocess.run(
        inside(root, *arguments), env={"PATH": os.environ["PATH"], **(env or {})},
        capture_output=True, text=True, timeout=WITHIN_SECONDS,
    )


def contents(suite):
    files = {str(path.relative_to(IMAGE)) for path in IMAGE.rglob("*") if not path.is_dir()}
    expected = {BINARY, "etc/ssl/certs/ca-certificates.crt", "etc/passwd", "etc/group", "etc/nsswitch.conf"}
    check(suite, "nothing but the binary, the roots of TLS and the user", files == expected, sorted(files ^ expected))
    writable = [
        str(path) for path in [IMAGE, *IMAGE.rglob("*")]
        if path.lstat().st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID)
        or path.lstat().st_uid not in (0, USER)
        or path.lstat().st_uid == USER and path != IMAGE / "var/lib/clerk-authz"
    ]
    check(suite, "its user owns the state's folder and nothing else", not writable, writable)
    size = ARCHIVE.stat().st_size
    check(suite, f"at most 25 MiB: {size / 1024 / 1024:.1f} MiB", size <= LIMIT_BYTES, size)
    config = json.loads(CONFIG.read_text())["Docker"]["config"]
    user = config["User"]
    check(suite, "a user that is a number and not root", re.fullmatch("[1-9][0-9]*:[1-9][0-9]*", user), user)
    probe = config.get("Healthcheck", {}).get("Test")
    check(suite, "the probe is `clerk-authz health`", probe == ["CMD", f"/{BINARY}", "health"], probe)
    check(suite, "it serves", (config["Entrypoint"], config["Cmd"]) == ([f"/{BINARY}"], ["serve"]), config)
    revision = config["Labels"]["org.opencontainers.image.revision"]
    check(suite, "the label says the revision", re.fullmatch("[0-9a-f]{40}", revision), revision)


def binary(suite, root):
    version = ran(root, "--version")
    lines = dict(line.split(": ", 1) for line in version.stdout.splitlines()[1:])
    check(suite, "--version says the revision", re.fullmatch("[0-9a-f]{40}(-dirty)?", lines.get("revision", "")), version)
    check(suite, "--version says the compiler", lines.get("compiler", "").startswith("rustc 1."), version)
    check(suite, "--version says that there is no offline Clerk", lines.get("emulator") == "no", version)
    for command in ["dev", "emulator"]:
        refused = ran(root, command)
        good = refused.returncode == 2 and "unrecognized subcommand" in refused.stderr
        check(suite, f"`{command}` is no command", good, refused)
    # Texts of the offline Clerk: each stands in its sources, or this could not fail.
    sources = "".join(path.read_text() for path in (ROOT / "src/emulator").rglob("*.*"))
    data = (root / BINARY).read_bytes()
    for text in OF_THE_OFFLINE_CLERK:
        check(suite, f"{text} is a text of the offline Clerk", text in sources, text)
        check(suite, f"{text} is not in the binary", text.encode() not in data, text)
    paths = [path for path in [str(ROOT), "/.cargo/", "/usr/local/cargo/", "/rustup/toolchains/"] if path.encode() in data]
    check(suite, "no path of the machine that built it", not paths, paths)
    headers = subprocess.run(["readelf", "--program-headers", root / BINARY], capture_output=True, text=True)
    check(suite, "no interpreter is asked for", headers.returncode == 0 and "INTERP" not in headers.stdout, headers)


class Service:
    """`clerk-authz serve` in the image, on loopback; ended by SIGTERM."""

    def __init__(self, root, **settings):
        self.root = root
        self.settings = {
            "PATH": os.environ["PATH"],
            "CLERK_AUTHZ_GRPC_ADDR": f"127.0.0.1:{free_port()}",
            "CLERK_AUTHZ_HTTP_ADDR": f"127.0.0.1:{free_port()}",
            "CLERK_AUTHZ_STATE_DIR": "/var/lib/clerk-authz",
            "CLERK_AUTHZ_DRAIN_PAUSE": "0s",
            "CLERK_AUTHZ_ISSUER": f"https://{CLERK}",
            "CLERK_AUTHORIZED_PARTIES": "https://app.example.com",
            **settings,
        }
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(inside(root, "serve"), env=self.settings, stdout=self.log, stderr=self.log)

    def health(self):
        return ran(self.root, "health", env=self.settings)

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def end(self):
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def running(suite, root, pem):
    # Shell quoting is not in the way: a PEM is a setting of its own.
    service = Service(root, CLERK_JWT_KEY=pem)
    unborn = ran(root, "health", env={**service.settings, "CLERK_AUTHZ_GRPC_ADDR": f"127.0.0.1:{free_port()}"})
    check(suite, "the probe of nobody ends with 2", unborn.returncode == 2, unborn)
    try:
        eventually("it serves", lambda: service.health().returncode == 0)
        health = service.health()
        check(suite, "as its own user, from a read-only root, it serves", health.stdout == "SERVING\n", health)
        owner = Path(f"/proc/{service.process.pid}").stat().st_uid
        check(suite, "it runs as that user", owner == USER, owner)
    except AssertionError as error:
        check(suite, "it serves", False, f"{error}: {service.said()}")
    code = service.end()
    check(suite, "SIGTERM ends it with 0", code == 0, (code, service.said()[-2000:]))


def certificate(name, key, issuer_name, issuer_key, is_authority):
    now = datetime.datetime.now(datetime.timezone.utc)
    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    builder = (
        x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(issuer_name))
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_authority, None), True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Keys(http.server.BaseHTTPRequestHandler):
    """A key set, as Clerk has it."""

    document = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.document)))
        self.end_headers()
        self.wfile.write(self.document)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    """A client that does not believe its certificate is no error of this test's."""

    def handle_error(self, *_):
        pass


def key_server(folder, public_key):
    """An HTTPS server with a key set; its port, and the authority that it is certified by."""
    def number(value):
        raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    numbers = public_key.public_numbers()
    key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "ins_image", "n": number(numbers.n), "e": number(numbers.e)}
    Keys.document = json.dumps({"keys": [key]}).encode()
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certificate("image-test-authority", authority_key, "image-test-authority", authority_key, True)
    pem = folder / "server.pem"
    pem.write_bytes(
        certificate(CLERK, server_key, "image-test-authority", authority_key, False)
        + server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = Server(("127.0.0.1", 0), Keys)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1], authority


def name_server(asked):
    """Answers the A record of CLERK, over UDP, as a cluster's DNS would."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((NAME_SERVER, 53))

    def answer():
        while True:
            query, peer = listener.recvfrom(4096)
            end = query.index(b"\0", 12) + 1
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += 1 + query[at]
            question, kind = query[12 : end + 4], query[end : end + 2]
            asked.append(".".join(labels))
            is_ours = ".".join(labels) == CLERK
            has_answer = is_ours and kind == b"\0\x01"
            flags = b"\x81\x80" if is_ours else b"\x81\x83"
            head = query[:2] + flags + b"\0\x01" + (b"\0\x01" if has_answer else b"\0\0") + b"\0\0\0\0"
            record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04" + ipaddress.ip_address("127.0.0.1").packed
            listener.sendto(head + question + (record if has_answer else b""), peer)

    threading.Thread(target=answer, daemon=True).start()


def reaching_clerk(suite, root, folder, public_key):
    port, authority = key_server(folder, public_key)
    asked = []
    name_server(asked)
    address = f"https://{CLERK}:{port}/jwks"
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    shipped = bundle.read_bytes()
    check(suite, "the roots of TLS are a bundle", shipped.count(b"BEGIN CERTIFICATE") > 100, len(shipped))

    stranger = Service(root, CLERK_AUTHZ_JWKS_URL=address)
    try:
        eventually("it says why", lambda: "UnknownIssuer" in stranger.said())
        health = stranger.health()
        check(suite, "an authority that is not in the bundle is not believed", health.returncode == 1, health)
    except AssertionError as error:
        check(suite, "an authority that is not in the bundle is not believed", False, f"{error}: {stranger.said()}")
    stranger.end()
    check(suite, "a name is looked up by DNS", CLERK in asked, asked)

    (root / "etc/ssl/own.pem").write_bytes(authority)
    for name, settings in [
        ("an authority in the bundle is believed", {}),
        ("SSL_CERT_FILE names another bundle", {"SSL_CERT_FILE": "/etc/ssl/own.pem"}),
    ]:
        bundle.chmod(0o644)
        bundle.write_bytes(shipped if settings else shipped + authority)
        service = Service(root, CLERK_AUTHZ_JWKS_URL=address, **settings)
        try:
            eventually("it has keys", lambda: service.health().returncode == 0)
            check(suite, name, True)
        except AssertionError as error:
            check(suite, name, False, f"{error}: {service.said()}")
        service.end()


def main():
    suite = []
    contents(suite)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        # A copy, with what a runtime lays over it.
        root = folder / "root"
        subprocess.run(["cp", "--archive", IMAGE, root], check=True)
        (root / "etc/resolv.conf").write_text(f"nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        binary(suite, root)
        key = rsa.generate_private_key(65537, 2048)
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        running(suite, root, pem.decode())
        reaching_clerk(suite, root, folder, key.public_key())
        shutil.rmtree(root)
    report("image", suite)
    print(f"{harness.passed} passed, {harness.failed} failed")
    sys.exit(1 if harness.failed else 0)


main()
