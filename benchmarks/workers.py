"""How long a sweep takes with 1, 2 and 4 worker processes on this machine.

    python benchmarks/workers.py [--workers 1 2 4] [--jobs 12] [key=value … as of generate.py]

Every worker count makes the same jobs (`seed=0,1,…`) with `hydra/launcher=local`, into folders of their own.
joblib gives each of n workers the cores divided by n as threads, so that they do not take them from one
another. Wall seconds, all that a command takes included, and the ratio to one worker in the same run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of generate.py")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=12)
    options = parser.parse_args()
    seeds = f"seed={','.join(map(str, range(options.jobs)))}"
    # joblib divides the cores, unless the environment says how many threads there are to be.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    first = None
    print(f"{options.jobs} jobs, {os.cpu_count()} cores\n{'workers':>7}{'seconds':>9}{'speed-up':>10}")
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as logs:
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "generate.py", "-m", seeds, "hydra/launcher=local", "reader=none",
                 f"hydra.launcher.n_jobs={workers}", f"paths.logs={logs}", *options.overrides],
                cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
            taken = time.perf_counter() - began
            if done.returncode:
                sys.exit(done.stderr)
            made = len(list(Path(logs).glob("generate/*/samples/*/image.png")))
            if made != options.jobs:
                sys.exit(f"{workers} workers made {made} of {options.jobs} samples")
        first = first or taken
        print(f"{workers:>7}{taken:>9.1f}{first / taken:>9.2f} ×", flush=True)


if __name__ == "__main__":
    main()
