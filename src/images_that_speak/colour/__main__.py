"""`python -m images_that_speak.colour`: colour the samples of a run."""

from __future__ import annotations

from ..cli import launch

if __name__ == "__main__":
    launch("colour")
