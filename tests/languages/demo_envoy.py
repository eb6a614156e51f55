"""Starts the demo with the real Envoy and pastes what it prints: every line answers as its title says.

    .venv/bin/python tests/languages/demo_envoy.py [path of clerk-authz]

Prints, last, `N passed, N failed, N skipped`.
"""

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


demo = subprocess.Popen(
    [sys.executable, ROOT / "scripts/demo-envoy.py", "--free-ports", BINARY],
    cwd=ROOT, stdout=subprocess.PIPE, text=True,
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
    check("at least ten blocks", rest and len(blocks) >= 10, text)
    token = ""
    for title, *lines in blocks if rest else []:
        # A block may use the token of the one before it, as in one terminal.
        token = next((line for line in reversed(lines) if line.startswith("TOKEN=")), token)
        expected = re.search(r"\((\d+)(?: ([A-Z_]+))?\)$", title)
        check(f"{title}: says what comes", expected, title)
        printed = paste(f"{definitions}\n{token}", lines)
        good = f"HTTP/1.1 {expected[1]} " in printed and (expected[2] or "") in printed
        check(title, good and "mallory" not in printed, (lines, printed))
        for word, found in [
            ("who asks", '"x-clerk-user-id": "user_alice"'),
            ("comes back", "location: https://accounts.example.com/sign-in?redirect_url=http"),
            ("shadow", 'outcome="different"} '),
            ("shadow", "the shadow policy decides otherwise"),
        ]:
            if word in title:
                check(f"{title}: {found}", found in printed, printed)
finally:
    demo.terminate()
    code = demo.wait(60)
    demo.stdout.close()
check("SIGTERM ends it with 0", code == 0, code)
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(failed > 0)
