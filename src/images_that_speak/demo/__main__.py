"""`python -m images_that_speak.demo`: open a page to try a family on."""

from __future__ import annotations

from ..cli import launch

if __name__ == "__main__":
    launch("demo")
