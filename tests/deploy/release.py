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
    # Nothing builds with an older one, so nothing older is promised; nor does a workflow bring another one.
    check(suite, "which is the oldest that is promised", CARGO["package"]["rust-version"] == toolchain, toolchain)
    others = [path.name for path in WORKFLOWS if re.search(r"rustup|cargo \+|RUSTUP_TOOLCHAIN|rust-toolchain", path.read_text())]
    check(suite, "and the only one of the workflows", not others, others)


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
        # Those of this repository are of the same commit.
        used = [(name, rest) for name, rest in used if not name.startswith("./")]
        loose = [name for name, rest in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) or " # v" not in rest]
        check(suite, f"{path.name}: actions stand by their commit, with the version behind", used and not loose, loose)
        document = yaml.safe_load(text)
        check(suite, f"{path.name}: no rights but to read, until a job asks", document["permissions"] == {"contents": "read"})
        # What somebody else may name is a variable of the shell, never a part of its text.
        spliced = [step["run"] for job in document["jobs"].values() for step in job.get("steps", []) if "${{" in step.get("run", "")]
        check(suite, f"{path.name}: nothing is spliced into a command", not spliced, spliced)
        scripts = {name for name in re.findall(r"(?:\.ci|scripts)/[\w./-]+", text)}
        gone = [name for name in scripts if not os.access(ROOT / name, os.X_OK)]
        check(suite, f"{path.name}: its scripts are there", scripts and not gone, gone)


def before_publishing(suite):
    """What must have happened before anything leaves, and what must leave with it."""
    ci, release = (yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text()) for name in ("ci", "release"))
    # To YAML 1.1 the key `on` is true.
    check(suite, "ci.yml can be called", "workflow_call" in ci[True], ci[True])
    runs = [step for job in ci["jobs"].values() for step in job["steps"] if step.get("run") == ".ci/run"]
    check(suite, "it runs every suite", len(runs) == 1, runs)
    lenient = [name for name, job in ci["jobs"].items() for part in [job, *job["steps"]] if {"if", "continue-on-error"} & set(part)]
    check(suite, "none of it may fail or be left out", not lenient, lenient)
    jobs = release["jobs"]
    suites = {name for name, job in jobs.items() if job.get("uses") == "./.github/workflows/ci.yml" and "if" not in job}
    check(suite, "a release calls it", len(suites) == 1, suites)

    def before(name):
        needs = jobs[name].get("needs", [])
        needs = {needs} if isinstance(needs, str) else set(needs)
        return needs.union(*(before(need) for need in needs))

    # Without the right to write nothing can be published.
    writing = {name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()}
    early = {name for name in writing if not suites or not suites <= before(name)}
    check(suite, "what can write waits for it", writing == {"build", "publish"} and not early, (writing, early))
    # `always()` would go on behind what failed.
    conditional = [name for name, job in jobs.items() for part in [job, *job.get("steps", [])] if {"if", "continue-on-error"} & set(part)]
    check(suite, "and for its success", not conditional, conditional)

    built = [entry["architecture"] for entry in jobs["build"]["strategy"]["matrix"]["include"]]
    steps = [step.get("run", "") for step in jobs["publish"]["steps"]]
    each = f"for architecture in {' '.join(built)}; do"
    file = "release/clerk-authz-$VERSION-linux-$architecture.cdx.json"

    def steps_for_each(what):
        """Where a step does it for each architecture."""
        loops = [re.findall(rf"^{re.escape(each)}\n(.*?)^done$", step, re.M | re.S) for step in steps]
        return [number for number, bodies in enumerate(loops) if any(what in re.sub(r"\s+", " ", body) for body in bodies)]

    written = steps_for_each(f'scripts/sbom.sh "$architecture" "{file}"')
    summed = [number for number, step in enumerate(steps) if "sha256sum -- * > SHA256SUMS" in step]
    attached = steps_for_each(f'attest --yes --type cyclonedx \\ --predicate "{file}" "$IMAGE@$digest"')
    check(suite, "each architecture has a list of what it is made of", len(written) == 1, steps)
    check(suite, "which is in the signed sums", summed and written and written[0] < summed[0], (written, summed))
    check(suite, "and is attached to its image", len(attached) == 1, steps)
    script = (ROOT / "scripts/sbom.sh").read_text()
    known = re.findall(r"^  (\w+)\) target=(\w+)-unknown-linux-gnu ;;$", script, re.M)
    check(suite, "the script knows each", sorted(name for name, _ in known) == sorted(built), known)
    check(suite, "each as another target", len({target for _, target in known}) == len(built), known)
    check(suite, "which it asks for", '--target "$target"' in script)
    other = run("scripts/sbom.sh", "riscv64", "/dev/null")
    check(suite, "and no other", other.returncode == 2 and "riscv64" in other.stderr, other)


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
    ("before publishing", True, before_publishing),
    ("hadolint", HADOLINT, lint(HADOLINT, [ROOT / "deploy/Dockerfile"])),
    ("actionlint", ACTIONLINT, lint(ACTIONLINT, WORKFLOWS)),
])
