"""Make pictures that speak; `python generate.py --help` says what can be chosen."""

from images_that_speak.cli import launch

if __name__ == "__main__":
    # Named, not imported: torch takes seconds to import, and a typo should not cost them.
    launch("generate", "images_that_speak.generate.generate")
