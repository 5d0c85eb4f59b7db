# make generate | make demo | make train | make test | make check | make pocket; each installs first what is missing,
# in the versions of requirements.lock: what was tested is what is installed. `make setup` installs all of it.
# `make lock` brings the lock up to pyproject.toml, `make lock ARGS=--upgrade` to the newest of its ranges;
# `make newest` tries the newest of each range without the lock.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
LOCK := requirements.lock
FONT := /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf
STAMPS := /usr/share/tuxpaint/stamps
# Debian packages. Generating and evaluating need none: these are for building a corpus and drawing pictures to learn
# from,
DEBIAN := flite fonts-noto-color-emoji
# and these for tests, which open pages in a browser and speak with photographs.
DEBIAN_TESTS := chromium chromium-driver tuxpaint-stamps-default

.PHONY: setup system system_tests generate demo train test check lock newest pocket
.DEFAULT_GOAL := setup

setup: .venv/dev.installed system system_tests

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is too old: Python 3.11 or newer is needed (make $(MAKECMDGOALS) PYTHON=python3.12)"; exit 1; }
	$(PYTHON) -m venv .venv

# $(call pip,.[EXTRAS]): the package as it lies here, with extras, in the versions of the lock.
pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -e '$(1)'

# One stamp for each set of packages. Voice and judges are small publishers', and may be gone one day: all works without.
VOICES := note: the extras voices and judges could not be installed; flite and the family speak, pocketsphinx listens

.venv/generate.installed: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "installing what generating needs (README says how large it is)"
	@$(call pip,.[voices$(comma)judges]) 2>/dev/null || { $(call pip,.) && echo "$(VOICES)"; }
	@touch $@

.venv/demo.installed: .venv/generate.installed
	@echo "installing what the page needs"
	@$(call pip,.[demo])
	@touch $@

.venv/train.installed: .venv/generate.installed
	@echo "installing what training needs"
	@$(call pip,.[train$(comma)pitch])
	@touch $@

# Everything, so that the smaller sets need no look of their own.
.venv/dev.installed: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "installing everything that the tests need (README says how large it is)"
	@$(call pip,.[dev])
	@touch .venv/generate.installed .venv/demo.installed .venv/train.installed $@

comma := ,

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

system_tests:
	$(call install,command -v chromium >/dev/null && command -v chromedriver >/dev/null && \
	test -d $(STAMPS),$(DEBIAN_TESTS),The tests that need them are skipped.)

# Whisper knows any word. Without it pocketsphinx listens, which knows a hundred, and the voice is a plainer one.
SAYS = $(if $(wildcard .venv/lib/*/site-packages/faster_whisper),audio_prompt="A strong wind blew the leaves across \
	the empty playground.",audio_prompt="beautiful morning music by the river" style=clearer_speech)

generate: .venv/generate.installed
	$(BIN)/python generate.py $(if $(ARGS),$(ARGS),image=docs/media/photographs/chelsea.jpg $(SAYS))

demo: .venv/demo.installed
	$(BIN)/python -m images_that_speak.demo $(ARGS)

train: .venv/train.installed system
	$(BIN)/python train.py $(ARGS)

test: setup
	$(BIN)/python -m pytest -n auto $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

# For Pythons 3.11 and up and all systems at once. Not in it are the extras that no test uses, for what they need holds
# back what the others have: ray, kokoro.
lock: | $(BIN)/python
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(BIN)/uv pip compile pyproject.toml --universal --extra dev --extra quality --extra notebooks --quiet \
	  --no-annotate --custom-compile-command 'make lock' --output-file $(LOCK) $(ARGS)

# A broken release is found here first: neither the lock nor .venv is used.
newest:
	@$(PYTHON) tools/newest.py $(ARGS)

# The embedded family from nothing: each step is a command of its own and goes on where it stopped.
pocket: .venv/train.installed system
	$(BIN)/python -m images_that_speak.data
	$(BIN)/python train.py experiment=pocket/letters export=weights/pocket/speech
	$(BIN)/python train.py experiment=pocket/tokenizer export=weights/pocket/image
	$(BIN)/python train.py experiment=pocket/autoencoder export=weights/pocket
	$(BIN)/python train.py experiment=pocket/decoder export=weights/pocket
	$(BIN)/python train.py experiment=pocket/durations export=weights/pocket/speech
	$(BIN)/python train.py experiment=pocket/speech export=weights/pocket/speech
	$(BIN)/python train.py experiment=pocket/speech_more export=weights/pocket/speech
	$(BIN)/python train.py experiment=pocket/text export=weights/pocket/image
	$(BIN)/python train.py experiment=pocket/scene export=weights/pocket/image
	$(BIN)/python train.py experiment=pocket/image export=weights/pocket/image
	$(BIN)/python train.py experiment=pocket/colour export=weights/pocket
	$(BIN)/python train.py experiment=pocket/clip export=weights/pocket
	$(BIN)/python -m images_that_speak.data data.root=data/pocket_voices data.voices=[awb,kal16] data.prompts=600
	$(BIN)/python train.py experiment=pocket/ctc export=weights/pocket
	$(BIN)/python -m images_that_speak.data tts=hibari data.root=data/pocket_hibari data.voices=[heart] data.prompts=900
	$(BIN)/python train.py experiment=pocket/ctc_more export=weights/pocket
	$(BIN)/python train.py experiment=pocket/vocoder export=weights/pocket/vocos
	$(BIN)/python train.py experiment=pocket/family model.folder=weights/pocket
