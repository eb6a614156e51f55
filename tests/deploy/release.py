"""Holds what a release is made of together: versions, toolchains, workflows, the package, the changelog.

    .venv/bin/python tests/deploy/release.py

Prints a line per part and, last, `N passed, N failed, N skipped`. A tool that is not there is named and
its part skipped; with CI=true that is a failure.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "languages"))
from harness import ROOT, check, run_parts  # noqa: E402
from rendering import found  # noqa: E402

CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


HADOLINT = found("hadolint", Path(sys.executable).parent / "hadolint")
ACTIONLINT = found("actionlint", ROOT / ".tools/bin/actionlint")


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def versions(suite):
    chart = yaml.safe_load((ROOT / "deploy/helm/clerk-authz/Chart.yaml").read_text())
    tag = yaml.safe_load((ROOT / "deploy/kustomize/base/kustomization.yaml").read_text())["images"][0]["newTag"]
    said = (chart["version"], chart["appVersion"], tag)
    check(suite, "chart, overlays and Cargo.toml have one version", set(said) == {CARGO["package"]["version"]}, said)
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    check(suite, "the image is built by the toolchain of the repository", f"/rust:{toolchain}-" in dockerfile, toolchain)
    oldest = tuple(map(int, CARGO["package"]["rust-version"].split(".")))
    check(suite, "which is not older than the oldest", tuple(map(int, toolchain.split(".")))[:2] >= oldest, (toolchain, oldest))


def context(suite):
    """What `docker build` sees: what Cargo.toml names must be there, and nothing that is not committed."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    check(suite, "what is not named is left out", lines and "*" in lines, lines)
    targets = [t.get("path", f"benches/{t['name']}.rs") for kind in ["bin", "bench", "test"] for t in CARGO.get(kind, [])]
    for target in targets + ["src/lib.rs", "build.rs", "Cargo.lock", "proto/clerkauthz/v1/authz_service.proto"]:
        there = any(target == path or target.startswith(f"{path}/") for path in kept)
        check(suite, f"{target} is there", (ROOT / target).exists() and there, kept)
    commands = [line for line in (ROOT / "deploy/Dockerfile").read_text().splitlines() if line.startswith("RUN ")]
    scripts = re.findall(r"scripts/[\w.-]+", "".join(commands))
    check(suite, "its scripts are there", scripts and set(scripts) <= set(kept), scripts)


def changelog(suite):
    def section(*version):
        return run("scripts/changelog-section.sh", *version)

    check(suite, "a section is printed", section("Unreleased").stdout.startswith("\n### ") or "### " in section("Unreleased").stdout)
    check(suite, "without its heading", "## Unreleased" not in section("Unreleased").stdout.replace("### ", ""))
    missing = section("99.0.0")
    check(suite, "a version without one is an error", missing.returncode == 1 and "99.0.0" in missing.stderr, missing)
    # A dot is a dot.
    check(suite, "nor does another version count", section("Unrelease.").returncode == 1)
    check(suite, "which version is asked", section().returncode != 0)


def package(suite):
    listed = run("cargo", "package", "--list", "--allow-dirty", "--offline", "--locked")
    files = set(listed.stdout.split())
    check(suite, "it can be packed", listed.returncode == 0, listed.stderr)
    protos = {str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto")}
    migrations = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.sql")}
    needed = {"Cargo.lock", "build.rs", "LICENSE", "README.md", "src/main.rs"} | protos | migrations
    check(suite, "what it is built from is in it", protos and migrations and needed <= files, needed - files)
    odd = [file for file in files if not file.startswith(("src/", "proto/")) and "/" in file]
    check(suite, "and nothing else", not odd, odd)
    # What the compiler reads of documents and tests is of tests alone.
    outside = []
    for path in (ROOT / "src").rglob("*.rs"):
        text = path.read_text()
        production = text if path.name != "tests.rs" else ""
        for found_at in re.finditer(r'include_(?:str|bytes)!\(\s*"([^"]+)"', production):
            included = os.path.relpath((path.parent / found_at.group(1)).resolve(), ROOT)
            if included not in files and "#[cfg(test)]" not in text[: found_at.start()]:
                outside.append((str(path.relative_to(ROOT)), included))
    check(suite, "it needs no file that is not in it", not outside, outside)


def workflows(suite):
    names = [path.name for path in WORKFLOWS]
    check(suite, "there are the two", names == ["ci.yml", "release.yml"], names)
    for path in WORKFLOWS:
        text = path.read_text()
        used = re.findall(r"uses: (\S+)(.*)", text)
        loose = [name for name, rest in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) or " # v" not in rest]
        check(suite, f"{path.name}: actions stand by their commit, with the version behind", used and not loose, loose)
        document = yaml.safe_load(text)
        check(suite, f"{path.name}: no rights but to read, until a job asks", document["permissions"] == {"contents": "read"})
        # What somebody else may name is a variable of the shell, never a part of its text.
        spliced = [step["run"] for job in document["jobs"].values() for step in job["steps"] if "${{" in step.get("run", "")]
        check(suite, f"{path.name}: nothing is spliced into a command", not spliced, spliced)
        scripts = {name for name in re.findall(r"(?:\.ci|scripts)/[\w./-]+", text)}
        gone = [name for name in scripts if not os.access(ROOT / name, os.X_OK)]
        check(suite, f"{path.name}: its scripts are there", scripts and not gone, gone)


def lint(tool, files):
    def part(suite):
        for file in files:
            ran = run(tool, str(file))
            check(suite, file.name, ran.returncode == 0, ran.stdout + ran.stderr)

    return part


run_parts([
    ("versions", True, versions),
    ("docker context", True, context),
    ("changelog", True, changelog),
    ("package", True, package),
    ("workflows", True, workflows),
    ("hadolint", HADOLINT, lint(HADOLINT, [ROOT / "deploy/Dockerfile"])),
    ("actionlint", ACTIONLINT, lint(ACTIONLINT, WORKFLOWS)),
])
