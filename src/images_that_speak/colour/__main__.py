"""`python -m images_that_speak.colour`: colour the samples of a run."""

from __future__ import annotations

from ..cli import launch

if __name__ == "__main__":
    # Named, not imported: torch takes seconds to import, and a typo should not cost them.
    launch("colour", "images_that_speak.colour.run.colour")
