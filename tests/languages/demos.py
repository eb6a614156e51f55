"""Starts the demos and pastes what they print: every line answers as its title says.

    .venv/bin/python tests/languages/demos.py [path of clerk-authz]

Prints, last, `N passed, N failed, N skipped`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/debug/clerk-authz")
END = "Ctrl-C ends all of it."
passed = failed = 0


def check(name, condition, detail=""):
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"  FAILED {name}: {detail}", flush=True)


def paste(definitions, lines):
    """What the lines print, in one shell."""
    script = "\n".join([definitions, *lines])
    ran = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, text=True, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    return ran.stdout


def pasted(script, at_least):
    """Each block of a demo: its title, its lines, and what they printed."""
    demo = subprocess.Popen(
        [sys.executable, ROOT / "scripts" / script, "--free-ports", BINARY],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
        # No collector of the caller's own: the demo has one.
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
    )
    try:
        text = []
        for line in demo.stdout:
            text.append(line.rstrip("\n"))
            if text[-1] == END:
                break
        greeting, _, rest = "\n".join(text).partition("\n# ")
        definitions = greeting.strip().split("\n\n")[-1]
        blocks = [block.split("\n") for block in ("# " + rest).removesuffix(END).strip().split("\n\n")]
        check(f"{script}: at least {at_least} blocks", rest and len(blocks) >= at_least, text)
        token = ""
        for title, *lines in blocks if rest else []:
            # A block may use the token of the one before it, as in one terminal.
            token = next((line for line in reversed(lines) if line.startswith("TOKEN=")), token)
            yield title, lines, paste(f"{definitions}\n{token}", lines)
    finally:
        demo.terminate()
        code = demo.wait(60)
        demo.stdout.close()
        check(f"{script}: SIGTERM ends it with 0", code == 0, code)


for title, lines, printed in pasted("demo-envoy.py", 10):
    expected = re.search(r"\((\d+)(?: ([A-Z_]+))?\)$", title)
    check(f"{title}: says what comes", expected, title)
    good = f"HTTP/1.1 {expected[1]} " in printed and (expected[2] or "") in printed
    check(title, good and "mallory" not in printed, (lines, printed))
    for word, found in [
        ("who asks", '"x-clerk-user-id": "user_alice"'),
        ("signature", '"x-clerk-authz-assertion": "ey'),
        ("and comes back (302)", "/sign-in?redirect_url=http"),
        ("for another", "/v1/client/handshake?redirect_url=http"),
        ("for another", "x-clerk-auth-reason: session-token-expired-refresh-"),
        ("goes there", '"x-clerk-user-id": "user_alice"'),
        ("shadow", 'outcome="different"} '),
        ("shadow", "the shadow policy decides otherwise"),
    ]:
        if word in title:
            check(f"{title}: {found}", found in printed, printed)

for title, lines, printed in pasted("demo-replicas.py", 12):
    _, _, expected = title.rpartition(": ")
    # Where both are asked, both answer.
    times = 2 if title.startswith("# both") else 1
    # As a word: not "10 failed", nor NOT_SERVING.
    found = re.findall(rf"(?<!\w){re.escape(expected)}", printed)
    check(title, len(found) >= times, (lines, printed))
    if expected == "0 failed":
        calls = re.search(r"(\d+) calls answered", printed)
        check(f"{title}: of many", calls and int(calls[1]) > 200, printed)
    if expected == "clerk.request":
        root = re.search(r"replica-1 clerkauthz\.v1\.AuthzService/SyncUser .* span=(\w+) parent=b7ad6b7169203331$", printed, re.M)
        check(f"{title}: as a part of its caller's", root, printed)
        for span in ["clerk.request", "store.apply"]:
            found = re.search(rf" {re.escape(span)} .* parent={root and root[1]}$", printed, re.M)
            check(f"{title}: {span} is a part of it", found, printed)

# The small variant of what docs/operations.md says of a rolling restart.
ran = subprocess.run(
    [sys.executable, ROOT / "scripts/rolling-restart.py", "--calls", "200", "--restarts", "2", "--clients", "2", BINARY],
    cwd=ROOT, capture_output=True, text=True, timeout=180)
said = re.search(r"(\d+) calls answered at \d+/s over 2 restarts, 0 failed", ran.stdout)
check("rolling-restart.py: no call fails", ran.returncode == 0 and said and int(said[1]) > 400, (ran.stdout, ran.stderr))
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(failed > 0)
