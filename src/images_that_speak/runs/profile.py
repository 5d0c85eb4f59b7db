"""What a run spends its time on, operation by operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from ..files import atomic_path, atomic_write

ROWS = 40  # operations listed


@contextmanager
def profiled(folder: Path, on: bool = True) -> Iterator[None]:
    """Write what happens within to `folder`: profile.txt, the operations that take most time by themselves,
    and trace.json.gz, every one of them, for Perfetto or chrome://tracing. With `on` false, nothing."""
    if not on:
        yield
        return
    gpu = torch.cuda.is_available()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=kinds, acc_events=True) as measured:
        yield
    order = "self_cuda_time_total" if gpu else "self_cpu_time_total"
    atomic_write(folder / "profile.txt", measured.key_averages().table(sort_by=order, row_limit=ROWS))
    with atomic_path(folder / "trace.json.gz") as temporary:
        measured.export_chrome_trace(str(temporary))
