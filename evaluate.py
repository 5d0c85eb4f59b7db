"""Read pictures back: what is seen, what is heard; `python evaluate.py --help` says what can be chosen."""

from images_that_speak.cli import launch

if __name__ == "__main__":
    # Named, not imported: torch takes seconds to import, and a typo should not cost them.
    launch("evaluate", "images_that_speak.scoring.evaluate.evaluate")
