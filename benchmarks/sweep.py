"""What a job of a sweep costs beside its own work, and against a fresh process for each job.

    python benchmarks/sweep.py [key=value … as of generate.py; steps=10 unless given]

The work is denoising, decoding, writing the sample and reading it back, with everything loaded. A job costs
what a sweep of many jobs takes longer than one of few, by the job. Seconds of CPU, so that others on
the machine do not count, and of the clock. Run it with OMP_NUM_THREADS=1: two threads would count twice.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FEW, MANY = 2, 10
LIMIT = 0.10  # of the work


def spent(arguments: list[str]) -> tuple[float, float]:
    """CPU and clock seconds of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, encoding="utf-8")
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - start)


def work(overrides: list[str], jobs: int) -> tuple[float, float]:
    """CPU and clock seconds of one sample's work, everything loaded."""
    from images_that_speak import config
    from images_that_speak.diffusion.family import Family
    from images_that_speak.diffusion.outputs import write_sample
    from images_that_speak.diffusion.planning import generate_batch, plan, read_settings, record
    from images_that_speak.scoring.evaluate import read_back
    from images_that_speak.scoring.judges import load_readers

    cfg = config.compose("generate", overrides)
    layout = config.instantiate(cfg.family)
    settings, (job, *_) = read_settings(cfg, layout), plan(cfg, layout)
    family = Family.load(layout, device=cfg.device, dtype=cfg.precision.dtype, vocoder=cfg.vocoder.path)
    readers = load_readers(cfg.reader, cfg.device)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(jobs + 1):
            if number == 1:  # the first is not counted
                cpu, clock = time.process_time(), time.perf_counter()
            picture = generate_batch(family, settings, [job])[0].numpy()
            write_sample(Path(folder), picture, family.vocoder, record(job, cfg))
            read_back([folder], readers, quiet=True)
        return (time.process_time() - cpu) / jobs, (time.perf_counter() - clock) / jobs


def main() -> None:
    overrides = [*([] if any(o.startswith("steps=") for o in sys.argv[1:]) else ["steps=10"]), *sys.argv[1:]]
    pure = work(overrides, MANY)
    with tempfile.TemporaryDirectory() as logs:
        totals = []
        for name, jobs in (("few", FEW), ("many", MANY)):
            seeds = ",".join(map(str, range(jobs)))
            totals.append(spent(["generate.py", "-m", f"seed={seeds}", f"paths.logs={logs}/{name}",
                                 *overrides]))
        fresh = spent(["generate.py", f"paths.logs={logs}/fresh", *overrides])
    job = tuple((many - few) / (MANY - FEW) for few, many in zip(*totals, strict=True))
    print(f"{'seconds a job':<42} {'CPU':>7} {'clock':>7}")
    for name, (cpu, clock) in (("its work, everything loaded", pure), ("in a sweep", job),
                               ("in a process of its own", fresh)):
        print(f"{name:<42} {cpu:>7.2f} {clock:>7.2f}")
    share = job[0] / pure[0] - 1
    print(f"overhead of a job in a sweep: {share:.1%} of its work, limit {LIMIT:.0%}: "
          f"{'met' if share <= LIMIT else 'NOT MET'}; in a process of its own: {fresh[0] / pure[0] - 1:.0%}")


if __name__ == "__main__":
    main()
