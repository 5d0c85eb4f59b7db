"""Train a model; `python train.py --help` says what can be chosen."""

from images_that_speak.cli import launch

if __name__ == "__main__":
    # Named, not imported: torch takes seconds to import, and a typo should not cost them.
    launch("train", "images_that_speak.training.train.train")
