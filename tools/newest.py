"""Try the newest release of everything that pyproject.toml admits, in an environment of its own.

    make newest, or python tools/newest.py [--extras dev] [--always] [--over .venv]

uv resolves what the ranges give, without requirements.lock: in seconds, where pip takes minutes. Where that
is what the lock holds, it is what the tests run with, and there is nothing to try. Else pip installs it in a
temporary folder, every dependency is imported, one picture is made and read back, and the end says which
step failed, or that all is well. An index and constraints that pip is configured with hold for uv too.

`--over FOLDER` takes from the environment in FOLDER what it has in just the version that was resolved, and
installs the rest before it: a minute, where gigabytes take many. An environment of its own also finds what a
release no longer brings along.
Needs the standard library alone. Neither the lock, .venv nor FOLDER is changed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
UV = "uv>=0.9,<1"
IMPORTS = """
import importlib, importlib.metadata as metadata, re, sys
wanted = [re.sub(r"[-_.]+", "-", name).lower() for name in sys.argv[1:]]
modules = {}
for module, owners in metadata.packages_distributions().items():
    for owner in owners:
        modules.setdefault(re.sub(r"[-_.]+", "-", owner).lower(), []).append(module)
failed = 0
for name in wanted:
    for module in modules.get(name, []):
        if module.isidentifier() and not module.startswith("_"):
            try:
                importlib.import_module(module)
            except Exception as error:
                failed = 1
                print(f"{name}: import {module}: {type(error).__name__}: {str(error)[:300]}", flush=True)
sys.exit(failed)
"""


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies(extras: str) -> set[str]:
    """Names of what pyproject.toml asks for with `extras` (commas between them) and those within them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = list(project["dependencies"])
    for extra in filter(None, extras.split(",")):
        texts += project["optional-dependencies"][extra]
    found = set()
    for text in texts:
        name, within = re.match(r"([\w.-]+)(?:\[([^]]*)\])?", text).groups()  # type: ignore[union-attr]
        found |= dependencies(within) if name == project["name"] else {plain(name)}
    return found


def configured(listing: str) -> list[str]:
    """uv's options for the index and the constraints in what `pip config list` prints."""
    lines = sorted(listing.splitlines(), key=lambda line: line.startswith(":env:"))
    found = dict(re.findall(r"^\S+\.(index-url|constraint)='(.*)'$", "\n".join(lines), re.MULTILINE))
    return [word for name, values in found.items() for value in values.split()
            for word in (f"--{name}", value)]


def locked(text: str) -> dict[str, set[str]]:
    """{name: versions} of a lock; one that holds for several Pythons may have several of a name."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        found.setdefault(plain(name), set()).add(version)
    return found


def differences(resolved: dict[str, str], lock: dict[str, set[str]]) -> list[str]:
    """`name old → new` for each of `resolved` that the lock has otherwise, or not at all."""
    return [f"{name} {' or '.join(sorted(lock.get(name, ()))) or 'absent'} → {version}"
            for name, version in sorted(resolved.items()) if version not in lock.get(name, ())]


def lay_over(folder: Path, base: Path) -> dict[str, str]:
    """Have the environment in `folder` import from the one in `base` what it lacks itself.

    Returns {name: version} of what `base` holds. Raises SystemExit where it is no environment of this Python.
    """
    packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    site = (base / packages).resolve()
    if not site.is_dir():
        raise SystemExit(f"newest: --over {base}: no environment there (expected {packages} within)")
    line = f"import site; site.addsitedir({str(site)!r})\n"
    (folder / packages / "over.pth").write_text(line, encoding="utf-8")
    return {plain(found.metadata["Name"]): found.version for found in distributions(path=[str(site)])}


def run(*command: str | Path, limit: float = 3600) -> None:
    """Run a command in the repository; its output is shown where it fails. Raises SystemExit then."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, text=True, timeout=limit,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        print(done.stdout[-4000:])
        shown = " ".join(str(word) for word in command if "\n" not in str(word))[:200]
        raise SystemExit(f"newest: FAILED (exit {done.returncode}): {shown}")


def attempt(folder: Path, extras: str, always: bool, over: Path | None) -> None:
    """Resolve, compare with the lock, install, import, make a picture, read it back."""
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"newest: {what} ({time.monotonic() - began:.0f} s)", flush=True)

    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv/bin/python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", UV)
    listing = subprocess.run([python, "-m", "pip", "config", "list"], text=True, check=True,
                             capture_output=True).stdout
    newest = folder / "newest.txt"
    chosen = [word for extra in filter(None, extras.split(",")) for word in ("--extra", extra)]
    run(folder / "venv/bin/uv", "pip", "compile", "pyproject.toml", "--python", python, "--quiet",
        "--no-annotate", "--no-header", "--no-cache", "--output-file", newest, *chosen, *configured(listing))
    resolved = {name: version for name, [version] in locked(newest.read_text(encoding="utf-8")).items()}
    changed = differences(resolved, locked(LOCK.read_text(encoding="utf-8")))
    tell(f"{len(resolved)} packages, {len(changed)} of them not as locked")
    for line in changed:
        print(f"  {line}")
    if not changed and not always:
        return tell("what the ranges give is what was tested; nothing to try")
    if over is None:
        run(*pip, "install", "--no-compile", "-c", newest, "-e", f".[{extras}]" if extras else ".")
    else:
        there = lay_over(folder / "venv", over)
        lacking = [f"{name}=={version}" for name, version in resolved.items() if there.get(name) != version]
        run(*pip, "install", "--no-compile", "--no-deps", "--ignore-installed", "-e", ".", *lacking)
    tell("installed")
    direct = dependencies(extras) & set(resolved)
    run(python, "-c", IMPORTS, *sorted(direct))
    tell(f"{len(direct)} dependencies imported")
    run(python, "generate.py", f"paths.logs={folder}/logs")
    [made] = (folder / "logs/generate").glob("*/result.json")
    run(python, "evaluate.py", f"run={made.parent}", f"paths.logs={folder}/logs")
    [read] = (folder / "logs/evaluate").glob("*/result.json")
    tell(f"a picture made and read back, WER {json.loads(read.read_text(encoding='utf-8'))['wer']:.2f}")
    print("newest: all is well" + ("; `make lock ARGS=--upgrade` takes it over" if changed else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description="Try the newest release of everything, without the lock.")
    parser.add_argument("--extras", default="dev", help="which to try, with commas; '' for none")
    parser.add_argument("--always", action="store_true", help="install and try also what is locked already")
    parser.add_argument("--over", type=Path, help="environment to take from what is there as resolved")
    options = parser.parse_args()
    # `timeout` ends this with SIGTERM: gigabytes would stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("newest: out of time, nothing is known of it"))
    with tempfile.TemporaryDirectory(prefix="newest-") as folder:
        attempt(Path(folder), options.extras, options.always, options.over)


if __name__ == "__main__":
    main()
