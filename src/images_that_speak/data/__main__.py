"""Build a corpus: `python -m images_that_speak.data`; `--help` says what can be chosen."""

from ..cli import launch

if __name__ == "__main__":
    launch("corpus")
