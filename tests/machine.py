"""What some tests need beside the packages: Debian's, which `make setup` installs where it may."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from images_that_speak.data.emoji import FONT

HAS_FLITE = shutil.which("flite") is not None
needs_flite = pytest.mark.skipif(not HAS_FLITE, reason="Debian's flite is not installed (make setup)")
needs_font = pytest.mark.skipif(not Path(FONT).exists(),
                                reason="Debian's fonts-noto-color-emoji is not installed (make setup)")
