"""Try the newest release of everything that pyproject.toml admits, in an environment of its own.

    make newest, or python tools/newest.py [--extras dev] [--always]

What the ranges give is resolved without requirements.lock. Where that is what the lock holds, it is what the
tests run with, and there is nothing to try. Else it is installed in a temporary folder, every dependency is
imported, one picture is made and read back, and the end says which step failed, or that all is well.
Needs the standard library alone. Neither the lock nor .venv is changed.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
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


def run(*command: str | Path, limit: float = 3600) -> None:
    """Run a command in the repository; its output is shown where it fails. Raises SystemExit then."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, text=True, timeout=limit,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        print(done.stdout[-4000:])
        shown = " ".join(str(word) for word in command if "\n" not in str(word))[:200]
        raise SystemExit(f"newest: FAILED (exit {done.returncode}): {shown}")


def attempt(folder: Path, extras: str, always: bool) -> None:
    """Resolve, compare with the lock, install, import, make a picture, read it back."""
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"newest: {what} ({time.monotonic() - began:.0f} s)", flush=True)

    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv/bin/python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
    wanted = f"{ROOT}[{extras}]" if extras else str(ROOT)
    run(*pip, "install", "--dry-run", "--ignore-installed", "--report", folder / "report.json", wanted)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))["install"]
    resolved = {plain(entry["metadata"]["name"]): entry["metadata"]["version"] for entry in report}
    own = next(entry["metadata"] for entry in report if entry.get("requested"))
    del resolved[plain(own["name"])]
    changed = differences(resolved, locked(LOCK.read_text(encoding="utf-8")))
    tell(f"{len(resolved)} packages, {len(changed)} of them not as locked")
    for line in changed:
        print(f"  {line}")
    if not changed and not always:
        return tell("what the ranges give is what was tested; nothing to try")
    run(*pip, "install", "-e", wanted)
    tell("installed")
    direct = {plain(re.match(r"[\w.-]+", text).group()) for text in own["requires_dist"]}  # type: ignore[union-attr]
    run(python, "-c", IMPORTS, *sorted(direct & set(resolved)))
    tell(f"{len(direct & set(resolved))} dependencies imported")
    run(python, "generate.py", f"paths.logs={folder}/logs")
    [sample] = (folder / "logs/generate").glob("*/samples/*/sample.json")
    run(python, "evaluate.py", f"run={sample.parents[2]}", f"paths.logs={folder}/logs")
    heard = json.loads(sample.read_text(encoding="utf-8"))
    tell(f"a picture made and read back, WER {heard.get('wer')}")
    print("newest: all is well" + ("; `make lock ARGS=--upgrade` takes it over" if changed else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description="Try the newest release of everything, without the lock.")
    parser.add_argument("--extras", default="dev", help="which to try, with commas; '' for none")
    parser.add_argument("--always", action="store_true", help="install and try also what is locked already")
    options = parser.parse_args()
    # `timeout` ends this with SIGTERM: gigabytes would stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("newest: out of time, nothing is known of it"))
    with tempfile.TemporaryDirectory(prefix="newest-") as folder:
        attempt(Path(folder), options.extras, options.always)


if __name__ == "__main__":
    main()
