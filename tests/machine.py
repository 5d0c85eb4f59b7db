"""What some tests need beside the packages: Debian's, which `make setup` installs where it may."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from images_that_speak.data.emoji import FONT

HAS_FLITE = shutil.which("flite") is not None
needs_flite = pytest.mark.skipif(not HAS_FLITE, reason="Debian's flite is not installed (make setup)")
needs_font = pytest.mark.skipif(not Path(FONT).exists(),
                                reason="Debian's fonts-noto-color-emoji is not installed (make setup)")


def apart(function: Callable[..., Any], *args: Any) -> int:
    """Call a function in a process of its own, which may be killed; return its exit code.

    All are forked from one that has imported what `function`'s module imports: torch and lightning take
    seconds of each process that is started anew.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    process = context.Process(target=function, args=args)
    process.start()
    process.join(300)
    assert process.exitcode is not None, "not done after 300 s"
    return process.exitcode
