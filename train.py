"""Train a model; `python train.py --help` says what can be chosen."""

try:
    from images_that_speak.cli import launch
except ModuleNotFoundError as error:  # another Python than the one that the Makefile installs into
    raise SystemExit(f"error: {error}; `make setup` installs it all, and .venv/bin/python has it") from None

if __name__ == "__main__":
    launch("train")
