# make generate | make demo | make test | make check | make pocket; each installs first what is missing.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
FONT := /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf
# Debian packages, and only for building a corpus and drawing pictures to learn from.
DEBIAN := flite fonts-noto-color-emoji
# Only tests open pages in a browser.
BROWSER := chromium chromium-driver

.PHONY: setup system browser generate demo test check pocket
.DEFAULT_GOAL := setup

setup: .venv/installed system

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is too old: Python 3.10 or newer is needed (make setup PYTHON=python3.12)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# $(call install,SHELL TEST THAT ALL IS THERE,DEBIAN PACKAGES,WHAT IS MISSED WITHOUT THEM)
define install
@if $(1); then exit 0; fi; \
if ! command -v apt-get >/dev/null; then sudo=none; \
elif test "$$(id -u)" = 0; then sudo=; \
elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else sudo=none; fi; \
if test "$$sudo" != none; then \
  echo "installing $(2)"; \
  { $$sudo apt-get -qq update && $$sudo env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install --no-install-recommends $(2) >/dev/null; } && exit 0; \
fi; \
echo "note: $(2) could not be installed here (Debian: sudo apt-get install $(2))."; \
echo "      $(3)"
endef

system:
	$(call install,command -v flite >/dev/null && test -e $(FONT),$(DEBIAN),Generating and evaluating \
	do without; building a corpus does not and the tests that need them are skipped.)

browser:
	$(call install,command -v chromium >/dev/null && command -v chromedriver >/dev/null,$(BROWSER),The \
	tests that open pages in a browser are skipped.)

generate: setup
	$(BIN)/python generate.py $(ARGS)

demo: setup
	$(BIN)/python -m images_that_speak.demo $(ARGS)

test: setup browser
	$(BIN)/python -m pytest -n auto $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

# The embedded family from nothing: each step is a command of its own and goes on where it stopped.
pocket: setup
	$(BIN)/python -m images_that_speak.data
	$(BIN)/python -m images_that_speak.speech.letters
	$(BIN)/python train.py experiment=pocket/tokenizer
	$(BIN)/python train.py experiment=pocket/autoencoder
	$(BIN)/python train.py experiment=pocket/decoder
	$(BIN)/python train.py experiment=pocket/durations
	$(BIN)/python train.py experiment=pocket/speech
	$(BIN)/python train.py experiment=pocket/speech_more
	$(BIN)/python train.py experiment=pocket/text
	$(BIN)/python train.py experiment=pocket/scene
	$(BIN)/python train.py experiment=pocket/image
	$(BIN)/python train.py experiment=pocket/colour
	$(BIN)/python train.py experiment=pocket/clip
	$(BIN)/python -m images_that_speak.data data.root=data/pocket_voices data.voices=[awb,kal16] data.prompts=600
	$(BIN)/python train.py experiment=pocket/ctc
	$(BIN)/python train.py experiment=pocket/vocoder
	$(BIN)/python train.py experiment=pocket/family
