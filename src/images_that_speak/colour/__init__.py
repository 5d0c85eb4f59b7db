"""Colour for the samples of a run: `python -m images_that_speak.colour run=DIR` (configs/colour.yaml)."""
