"""What `clerk-authz dev` prints to paste, pasted."""

import os
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from harness import BINARY, ROOT, Process, check, eventually, free_port, notes, report


class Guide:
    """The lines that `clerk-authz dev` prints, in blocks: a title and lines to paste."""

    END = "Ctrl-C ends both."

    def __init__(self, dev):
        lines = []
        for line in dev.process.stdout:
            lines.append(re.sub(r"\x1b\[[0-9;]*m", "", line.rstrip("\n")))
            if lines[-1] == self.END:
                break
        self.text = "\n".join(lines)
        # The last paragraph of the greeting defines what the others use.
        greeting, _, rest = self.text.partition("\n# ")
        self.definitions = greeting.strip().split("\n\n")[-1]
        blocks = ("# " + rest).removesuffix(self.END).strip().split("\n\n") if rest else []
        self.blocks = [(block.split("\n")[0][2:], block.split("\n")[1:]) for block in blocks]

    def paste(self, lines, env):
        """Each line with what it printed and its exit code, all in one shell."""
        mark = "=== done: "
        script = "\n".join([self.definitions, *(f"{line}\ncode=$?; echo; echo '{mark}'$code" for line in lines)])
        ran = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=env, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        parts = re.split(f"^{mark}(\\d+)$", ran.stdout, flags=re.MULTILINE)
        return list(zip(lines, parts[0::2], map(int, parts[1::2]), strict=False))


class Shell:
    """One bash, to which lines are given one after the other, as somebody pastes them."""

    MARK = "=== done: "

    def __init__(self, definitions, env):
        self.process = subprocess.Popen(
            ["bash"], cwd=ROOT, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.run(definitions)

    def run(self, line):
        """What a line prints, and its exit code."""
        # A line that hangs ends the shell, and with it the suite.
        hangs = threading.Timer(60, self.process.kill)
        hangs.start()
        try:
            return self.answer(line)
        finally:
            hangs.cancel()

    def answer(self, line):
        self.process.stdin.write(f"{line}\ncode=$?; echo; echo '{self.MARK}'$code\n")
        self.process.stdin.flush()
        printed = []
        for text in self.process.stdout:
            if text.startswith(self.MARK):
                return "".join(printed), int(text.removeprefix(self.MARK))
            printed.append(text)
        raise AssertionError(f"the shell ended at {line!r}")

    def end(self):
        self.process.stdin.close()
        self.process.wait(15)
        self.process.stdout.close()


# What "within a second" may take here, the start of grpcurl included.
SOON_SECONDS = 1.0


def seen_soon(suite, shell, line, expected):
    """Asks until it is answered as the line says, and how long that took."""
    began = time.monotonic()
    while True:
        printed, _ = shell.run(line)
        seconds = time.monotonic() - began
        if expected in printed or seconds > SOON_SECONDS:
            break
    check(suite, f"soon: {line[:60]}: {expected}", expected in printed, (line, printed))
    return seconds


def follow(suite, title, lines, shell, told):
    """Lines that change something at Clerk: each answers as is said behind it, and the watch tells of
    each in its order."""
    slowest = 0.0
    for line in lines:
        asked, _, expected = line.partition("    # ")
        if asked.startswith("authz WatchUsers"):
            # Apart from what the other lines print.
            shell.run(asked.replace(" & ", f" > {told.name} & "))
            eventually("the snapshot", lambda: "snapshotComplete" in Path(told.name).read_text())
            continue
        if asked.startswith("soon "):
            slowest = max(slowest, seen_soon(suite, shell, asked.removeprefix("soon "), expected))
            continue
        if asked == "kill $WATCH":
            watched(suite, title, told)
        printed, code = shell.run(asked)
        good = expected in printed if expected else code == 0 and '"errors"' not in printed
        check(suite, f"{title}: {line[:60]}", good, (line, printed, code))
    if slowest:
        check(suite, f"{title}: within {SOON_SECONDS} s", slowest <= SOON_SECONDS, slowest)
        notes.append(f"dev, {title}: the slowest was seen after {slowest:.2f} s")


def watched(suite, title, told):
    """What the watch printed, in order."""
    if "dropped" in title:
        expected = ["snapshotComplete", '"membershipDeleted"', '"role": "org:member"']
    else:
        expected = ["snapshotComplete", '"firstName": "Dave"', '"firstName": "David"', '"banned": true',
                    '"userDeleted"']

    def found():
        rest = Path(told.name).read_text()
        for word in expected:
            _, at, rest = rest.partition(word)
            if not at:
                return False
        return True

    try:
        eventually(f"{expected} in order", found)
        good = True
    except AssertionError:
        good = False
    check(suite, f"{title}: WatchUsers tells of it", good, Path(told.name).read_text())


def as_titled(line, printed, code, expected):
    """Whether a line of the guide answers as its title says; `expected` is None for a yes."""
    unknown = expected == "CLERK_UNAVAILABLE"
    if line.startswith("authz ExplainDecision"):
        outcome = "ACCEPTED" if expected is None else "CANNOT_TELL" if unknown else "DENIED"
        reason = expected is None or f'"reason": "REASON_{expected}"' in printed
        return code == 0 and f'"outcome": "DECISION_OUTCOME_{outcome}"' in printed and reason
    if line.startswith("authz VerifySession"):
        return '"session": {' in printed and code == 0 if expected is None else expected in printed and code != 0
    if line.startswith("authz CheckOrgPermission"):
        if unknown:
            return code != 0 and "Code: Unavailable" in printed and expected in printed
        if expected is None:
            return code == 0 and '"allowed": true' in printed
        return code == 0 and f'"reason": "REASON_{expected}"' in printed and '"allowed"' not in printed
    if "examples/python/verify.py" in line:
        return code == 0 and printed.strip().startswith("accepted: ")
    if " verify " in line or " check " in line:
        word = "cannot tell" if unknown else "denied" if expected else "allowed" if " check " in line else "accepted"
        ends = 2 if unknown else 1 if expected else 0
        return code == ends and f"\n{word}" in printed and (expected or "") in printed
    # What sets the scene.
    return code == 0


def dev():
    """What `dev` prints to paste, pasted: every line answers as its title says."""
    suite = []
    ports = ["--emulator-addr", "127.0.0.1:0", "--grpc-addr", f"127.0.0.1:{free_port()}",
             "--http-addr", f"127.0.0.1:{free_port()}"]
    # Another shell, in which the lines of an earlier one were pasted.
    stale = {**os.environ, "CLERK_SECRET_KEY": "sk_test_emulatordefault",
             "CLERK_API_URL": "http://127.0.0.1:9", "CLERK_AUTHZ_ISSUER": "http://127.0.0.1:9"}
    process = Process([BINARY, "dev", *ports], env=stale)
    try:
        guide = Guide(process)
        check(suite, "shows no port 0", not re.search(r":0\b", guide.text), guide.text)
        titles = [title for title, _ in guide.blocks]
        for word, least in [("an allow", 2), ("allowed", 5), ("denied, ", 5), ("Clerk goes down", 1), ("users are", 1), ("a session ends", 1), ("a member is dropped", 1), ("the same from Python", 1), ("what an upstream is told", 1)]:
            found = sum(title.startswith(word) for title in titles)
            check(suite, f"at least {least} of {word!r}", found >= least, titles)
        env = {key: value for key, value in os.environ.items() if not key.startswith("CLERK_")}
        for title, lines in guide.blocks:
            if any(word in title for word in ("within a second", "dropped", "machine", "API key", "upstream", "identity provider")):
                shell = Shell(guide.definitions, env)
                with tempfile.NamedTemporaryFile() as told:
                    follow(suite, title, lines, shell, told)
                shell.end()
                continue
            denied = re.match(r"denied, ([A-Z_]+)", title)
            expected = denied and denied[1]
            ran = guide.paste(lines, env)
            check(suite, f"{title}: all lines run", len(ran) == len(lines), ran)
            kinds = ["VerifySession", "CheckOrgPermission", "ExplainDecision", " check ", " verify "]
            asked = {kind for kind in kinds for line in lines if kind in line}
            both = {"CheckOrgPermission", "ExplainDecision", " check "}
            whole = asked in (both, {"VerifySession", "ExplainDecision"}, {" verify "})
            check(suite, f"{title}: is explained", whole, asked)
            for line, printed, code in ran:
                if "CONSISTENCY_LEVEL_FULLY_CONSISTENT" in line:
                    expected = "CLERK_UNAVAILABLE"
                good = as_titled(line, printed, code, expected)
                check(suite, f"{title}: {line[:60]}", good, (line, printed, code))
    except Exception as error:  # noqa: BLE001 - whatever it is, the suite has failed
        check(suite, "runs", False, repr(error))
    finally:
        code = process.end()
    check(suite, "SIGTERM ends it with 0", code == 0, code)
    report("dev", suite)
