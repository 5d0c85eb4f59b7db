"""A job's process ends when the sweep that launched it is gone.

joblib's workers wait for their next job for ever where their sweep was killed, each with a model in memory.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

LAUNCHER = "IMAGES_THAT_SPEAK_SWEEP"  # the environment variable that holds the process of the sweep
EVERY = 1.0  # seconds between two looks
WORKER = "LokyProcess"  # how joblib's launcher names its processes; other launchers look after theirs


def mark() -> None:
    """Say that this process launches the jobs of a sweep; what it starts inherits it."""
    os.environ[LAUNCHER] = str(os.getpid())


def watch() -> None:
    """In a worker of joblib, end this process soon after the one that launched it has gone.

    At once, without tidying up: a run that is cut off anywhere goes on when its command is issued again.
    """
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or not multiprocessing.current_process().name.startswith(WORKER):
        return
    if any(thread.name == LAUNCHER for thread in threading.enumerate()):  # of an earlier job
        return
    threading.Thread(target=_look, args=(int(launcher),), name=LAUNCHER, daemon=True).start()


def _look(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(EVERY)
    os._exit(1)
