"""The configs commands, the shell's TAB, check=true and the debug configurations."""

from __future__ import annotations

import gzip
import inspect
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import torch
import yaml
from machine import needs_font
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from tiny_family import tiny_pocket_family

from images_that_speak import cli, config, configs
from images_that_speak.checks import evaluate as check_evaluate
from images_that_speak.checks import generate as check_generate
from images_that_speak.checks import train as check_train
from images_that_speak.checks.findings import Findings
from images_that_speak.diffusion.estimate import parameters
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.loading import load_model
from images_that_speak.diffusion.planning import read_settings
from images_that_speak.errors import UserError
from images_that_speak.networks.adapters import ADAPTERS
from images_that_speak.networks.autoencoder import autoencoder_class
from images_that_speak.resources import CONFIGS, OWN_CONFIGS, ROOT, choices, groups
from images_that_speak.training.train import Repeated, train


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own configurations, whatever the environment says; it does not exist yet."""
    monkeypatch.setenv(OWN_CONFIGS, str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pocket_family(tmp_path_factory.mktemp("pocket"))


# --- list, show, copy, validate

def test_list_has_every_choice_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main(["list"]) == 0
    told = capsys.readouterr().out
    for group in groups():
        assert f"\n{group}  (" in f"\n{told}"
    lines = [line[4:].split("  ")[0].strip() for line in told.splitlines() if line.startswith("  ")]
    assert sorted(lines) == sorted(name for group in groups() for name in choices(group))
    assert configs.main(["list", "vocodr"]) == 2
    assert "Did you mean 'vocoder'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    ["pocket/speech", "steps=100", "trainer.clip=null", "adapter=pooled"],
    ["composition=split", "guidance.audio_weight=0.4", "image_prompt=it's, a cat"],
    ["evaluate", "pictures=docs/media"], ["corpus"]])
def test_show_is_the_configuration(words: list[str]) -> None:
    """Read as YAML, what is shown is what the task would be given."""
    task, overrides = configs.understand(words)
    cfg, _ = config.examine(task, overrides)
    assert yaml.safe_load("\n".join(configs.show(task, cfg, overrides))) == OmegaConf.to_container(
        cfg, resolve=True)


def test_show_tells_where_a_value_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pocket/speech", "steps=100", "data.valid.split=test"]
    assert configs.main(["show", *words]) == 0
    came = {line.split(":")[0].strip(): line.split("# ")[-1] for line in capsys.readouterr().out.splitlines()}
    assert came["steps"] == "command line" and came["split"] == "command line"
    assert came["log_every"] == "configs/trainer/default.yaml"
    assert came["ema_decay"] == "configs/experiment/pocket/speech.yaml"  # it has the last word over trainer/
    assert came["autocast"] == "configs/precision/32-true.yaml"
    assert came["phones"] == "configs/adapter/pitched.yaml"
    # And how it is written.
    assert came["pitch"].endswith("latents.yaml  ${data.valid.root}/pitch/valid.safetensors")
    assert came["logger"] == "configs/logger/none.yaml"


def test_show_shows_also_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main(["show", "guidance.audio_weight=3", "stepz=1"]) == 2
    told = capsys.readouterr()
    assert "audio_weight: 3.0 " in told.out
    assert "expected the share" in told.err and "Did you mean 'steps'?" in told.err
    assert configs.main(["show", "pocket/spech"]) == 2
    assert "Did you mean 'pocket/speech'?" in capsys.readouterr().err


def test_a_copy_is_composed_as_its_original(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = config._compose("train", ["experiment=pocket/lora_voice"])
    assert configs.main(["copy", "pocket/lora_voice", "mine/lora"]) == 0
    assert "python train.py experiment=mine/lora" in capsys.readouterr().out
    assert config._compose("train", ["experiment=mine/lora"]) == original
    text = (own / "experiment/mine/lora.yaml").read_text()
    assert "#   python train.py experiment=mine/lora\n" in text
    assert "experiment=pocket/lora_voice" not in text
    assert config.check("train", ["experiment=mine/lora"]) == []
    assert "mine/lora" in config.check("train", ["experiment=mine/lara"])[0]
    assert str(own) in "\n".join(configs.list_choices(["experiment"]))
    for taken in (["pocket/lora_voice", "mine/lora"], ["pocket/lora_voice", "pocket/clip"]):
        assert configs.main(["copy", *taken]) == 2
        assert "has this name already" in capsys.readouterr().err
    assert configs.main(["copy", "composition/split", "../split"]) == 2


def test_validate_compares_with_what_is_built(own: Path) -> None:
    configs.copy("composition/split", "halves")
    assert configs.validate_choices(["composition/halves"]) == []
    path = own / "composition/halves.yaml"
    path.write_text(path.read_text().replace("image_delta", "image_detla"))
    (own / "scheduler").mkdir()
    shutil.copy(CONFIGS / "scheduler/dpm.yaml", own / "scheduler/dpm.yaml")
    found = configs.validate_choices(["composition/halves", "scheduler/dpm"])
    assert len(found) == 2
    assert "Did you mean 'image_delta'?" in found[0] and str(path) in found[0]
    assert "hidden by the shipped one" in found[1]


def test_config_dir_names_another_folder(tmp_path: Path) -> None:
    assert cli._config_dir(["-m", "--config-dir", "here", "steps=1"]) == "here"
    assert cli._config_dir(["-cd=there"]) == "there"
    assert cli._config_dir(["steps=1"]) is None
    assert cli._config_dir([]) is None


# --- the shell

def test_a_real_bash_completes() -> None:
    """With the script that `-sc install=bash` prints, which serves all three. The answers are Hydra's."""
    asked = {"python train.py experiment=hi": "experiment=hifigan",
             "python generate.py scheduler=d": "scheduler=ddim scheduler=dpm",
             "python evaluate.py boo": "bootstrap="}
    program = 'eval "$(python train.py -sc install=bash)"\n' + "\n".join(
        f'COMP_LINE="{line}"; COMP_POINT={len(line)}; COMP_CWORD={line.count(" ")}; '
        'hydra_bash_completion; echo "${COMPREPLY[@]}"' for line in asked)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PATH": path})
    assert done.stdout.splitlines() == list(asked.values()), done.stderr


def test_tab_answers_in_half_a_second() -> None:
    """Of the processor's time, which does not depend on what else it has to do."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "train.py", "-sc", "query=bash"], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, "COMP_LINE": "python train.py experiment=hi"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout == "experiment=hifigan\n"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


# --- comments

def keys(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Every key below a node of YAML, with its place; of defaults lists none."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "defaults":
                continue
            yield key
            yield from keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from keys(value)


def uncommented(text: str) -> list[tuple[int, str]]:
    """(line, key) of every key without a comment beside it or right above.

    The file's opening says what the file is, which tells nothing of its first key.
    """
    lines = ["", *text.splitlines()]
    opening = sum(1 for _ in takewhile(lambda line: line.startswith("#"), lines[1:]))
    found = []
    for key in keys(yaml.compose(text, yaml.SafeLoader)):
        number = key.start_mark.line + 1
        above = number - 1 > opening and lines[number - 1].lstrip().startswith("#")
        if not (key.value.startswith("_") or " #" in lines[number] or above):
            found.append((number, key.value))
    return found


def test_every_key_has_its_comment() -> None:
    missing = [f"{path.relative_to(ROOT)}:{line} {key}" for path in sorted(CONFIGS.rglob("*.yaml"))
               for line, key in uncommented(path.read_text(encoding="utf-8"))]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(("text", "lines"), [
    ("# What it is.\na: 1\nb: 2  # seconds\n", [2]), ("# What it is.\n\n# Hz\na: 1\nb: 2\n", [5]),
    ("_target_: x\ndefaults:\n  - c: d\na:  # the part\n  b: 1\n  _c: 2\n", [5]),
    ("a: {b: 1, c: 2}  # sizes\nd: [{e: 1}]\n", [2, 2]), ("# What it is.\n{}\n", [])])
def test_a_comment_is_beside_its_key_or_right_above(text: str, lines: list[int]) -> None:
    assert [line for line, _ in uncommented(text)] == lines


# --- check=true

def stored(folder: Path) -> int:
    """How many parameters a folder's files hold."""
    return sum(value.numel() for path in folder.glob("*.safetensors") for value in load_file(path).values())


def launch(monkeypatch: pytest.MonkeyPatch, task: str, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [f"{task}.py", *arguments])
    try:
        cli.launch(task, "nowhere.work")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_check_tells_the_plan_and_does_nothing(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    places = ["composition=masks", f"family.weights={family}", f"paths.logs={tmp_path / 'logs'}"]
    assert launch(monkeypatch, "generate", "check=true", "num_samples=2", "reader=pocketsphinx", *places) == 0
    told = capsys.readouterr().out
    cfg = config.compose("generate", places)
    passes = read_settings(cfg, config.instantiate(cfg.family)).evaluations
    unet = sum(p.numel() for p in Family.load(family, ("image",)).predictors["image"].unet.parameters())
    assert f"{unet:,} parameters" in told
    assert "hh ae p iy b ey b iy m y uw z ih k" in told
    assert f"{passes} network evaluations a sample, {2 * passes} in all" in told
    assert "num_samples-2" in told and "(new)" in told and "nothing was run" in told
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("more", [("composition=masks",), ("voice=slt",),
                                  ("composition=speech_only", "family.lora=null")])
def test_check_says_that_all_is_well_with_what_ships(more: tuple[str, ...], tmp_path: Path, capsys,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped family, not a stand-in: its adapter computes tables as it is made."""
    code = launch(monkeypatch, "generate", "check=true", "device=cpu", f"paths.logs={tmp_path}/logs", *more)
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "speech conditioner" in told.out and "all is well" in told.out


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_can_be_counted(name: str, tmp_path: Path) -> None:
    sizes = {"phones": 43, "voices": 2, "channels": 8}
    made = ADAPTERS[name](**{key: value for key, value in sizes.items()
                             if key in inspect.signature(ADAPTERS[name]).parameters})
    made.save_pretrained(tmp_path)
    counted = load_model(ADAPTERS[name], tmp_path, torch.float32, weights=False)
    assert parameters(counted) == parameters(made)
    assert all(value.is_meta for value in (*counted.parameters(), *counted.buffers()))


def test_check_tells_every_error_at_once(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    """What the types, the ranges, the family and the composition have to say, in one block."""
    wrong = ["stepz=1", "seed=-1", "voice=nobody", "composition.edge=-1", "device=cuda",
             "vocoder.path=/nowhere"]
    if torch.cuda.is_available():
        wrong.remove("device=cuda")
    code = launch(monkeypatch, "generate", "check=true", "composition=masks", f"family.weights={family}",
                  f"paths.logs={tmp_path / 'logs'}", *wrong)
    told = capsys.readouterr().err
    assert code == 2 and len(told.splitlines()) == len(wrong), told
    for text in ("'steps'", "seed=-1", "voice='nobody'", "edge", "/nowhere"):
        assert text in told
    assert not (tmp_path / "logs").exists()


def test_a_file_that_is_cut_off_is_named(family: Path, tmp_path: Path) -> None:
    shutil.copytree(family / "vae", tmp_path / "vae")
    cut = next((tmp_path / "vae").glob("*.safetensors"))
    whole = cut.read_bytes()
    for size in (4, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError, match="vae: truncated or broken safetensors"):
            load_model(autoencoder_class(cut.parent), cut.parent, torch.float32, weights=False)


def test_weights_of_the_hub_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines, problems = check_generate.check(config._compose("generate", ["family=sd15", "device=cpu"]))
    assert not problems
    assert any("would be fetched" in line for line in lines)


def test_check_of_an_evaluation(tmp_path: Path) -> None:
    cfg = config.compose("evaluate", ["pictures=docs/media", f"paths.logs={tmp_path}"])
    lines, problems = check_evaluate.check(cfg)
    assert not problems
    assert any(re.search(r"\d in docs/media", line) for line in lines)


@pytest.mark.parametrize("name", choices("experiment"))
def test_check_builds_what_every_shipped_experiment_trains(name: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no corpus here and no hub: each way to them is a problem, and nothing else is."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cfg, _ = config.examine("train", [f"experiment={name}", f"paths.data={tmp_path}"])
    lines, problems = check_train.check(cfg)
    absent = ("no such manifest", "no such folder", "holds no utterances.csv", "not in the hub's cache",
              "model.folder=null")
    assert all(any(text in problem for text in absent) for problem in problems), problems
    built = any(line.startswith("networks") for line in lines)
    bare = OmegaConf.select(cfg, "model.job") is not None and name != "pocket/autoencoder"
    assert built != (bare or any(problem.startswith("model.") for problem in problems))
    if name == "pocket/speech":
        unet = 8_394_912  # as the shipped file holds
        assert stored(ROOT / "weights/pocket/speech/unet") == unet
        assert any(f"{unet:,} parameters" in line for line in lines)


@pytest.mark.parametrize(("name", "part"), [
    ("text", "image/text_encoder"), ("scene", "image/scene"), ("autoencoder", "vae"),
    ("durations", "speech/durations"), ("clip", None), ("tokenizer", None), ("family", None)])
def test_check_of_a_job_builds_what_it_trains(name: str, part: str | None, tmp_path: Path) -> None:
    """As many parameters as the shipped file holds; of what cannot be built, the option is named."""
    own = [f"experiment=pocket/{name}", f"paths.data={tmp_path}",
           *(["model.folder=weights/pocket"] if name == "family" else [])]
    lines, problems = check_train.check(config._compose("train", own))
    assert all("manifest" in problem for problem in problems)
    if part is not None:
        count = stored(ROOT / "weights/pocket" / part)
        assert any(f" {count:,} parameters" in line for line in lines), lines
    if name in ("tokenizer", "family"):  # nothing to build
        return
    assert any(line.startswith("networks") for line in lines)
    _, problems = check_train.check(config._compose("train", [*own, "+model.widht=3"]))
    assert any(problem.startswith("model") and "widht" in problem for problem in problems), problems


@pytest.mark.parametrize(("name", "root", "command"), [
    ("lora_voice", "pocket_awb", "data.voices=[awb] data.prompts=400"),
    ("ctc", "pocket_voices", "data.voices=[awb,kal16] data.prompts=600"), ("speech", "pocket_speech", "")])
def test_a_missing_corpus_is_built_as_the_experiment_says(name: str, root: str, command: str,
                                                          tmp_path: Path) -> None:
    cfg, _ = config.examine("train", [f"experiment=pocket/{name}", f"paths.data={tmp_path}"])
    _, problems = check_train.check(cfg)
    wanted = f"`python -m images_that_speak.data data.root={tmp_path / root} {command}".rstrip() + "`"
    assert any(wanted in problem for problem in problems), problems


def test_nobody_reads_only_where_reading_is_not_all() -> None:
    assert config.compose("generate", ["reader=none"]).reader is None
    told, = config.check("generate", ["reader=null"])
    assert told.startswith("reader=null: no such choice; expected one of both, ")
    told, = config.check("evaluate", ["pictures=docs/media", "reader=none"])
    assert told.startswith("reader=none: nobody would read")


def test_a_step_gathers_whatever_goes_wrong() -> None:
    found = Findings()
    with found.step("one"):
        raise UserError("first\nsecond")
    with found.step("two"):
        raise ValueError("third\nand more")
    with pytest.raises(KeyboardInterrupt), found.step("three"):
        raise KeyboardInterrupt
    assert found.problems == ["first", "second", "two: third"]


# --- debug=…

def tiny_training(tmp_path: Path, own: Path, *overrides: str) -> DictConfig:
    """An experiment of one's own: captions to drawings, a few thousand parameters, eight pictures."""
    (own / "experiment").mkdir(parents=True, exist_ok=True)
    (own / "experiment/tiny.yaml").write_text("""# @package _global_
# Captions to drawings, as small as it gets.
#   python train.py experiment=tiny
defaults:
  - override /data: pocket_image_latents
model:
  _target_: images_that_speak.training.diffusion.LatentDiffusionTraining
  unet:
    _target_: images_that_speak.training.diffusion.pocket_unet
    channels: [16, 32, 32]
  conditioner:
    _target_: images_that_speak.networks.text.pocket_text_conditioner
    tokenizer: ${paths.weights}/pocket/image/tokenizer
  min_snr_gamma: null
  lr: 3.0e-3
  warmup: 5
""")
    return config.compose("train", [
        "experiment=tiny", "device=cpu", f"paths.logs={tmp_path / 'logs'}", f"export={tmp_path / 'export'}",
        "data.train.length=8", "data.valid=null", "data.batch_size=2",
        f"data.train.latents={tmp_path / 'latents'}", *overrides])


@needs_font
def test_overfitting_learns_one_batch_and_exports_nothing(tmp_path: Path, own: Path) -> None:
    result = train(tiny_training(tmp_path, own, "debug=overfit", "steps=80", "trainer.validate_every=20"))
    folder = next((tmp_path / "logs/train").iterdir())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["valid/loss"] for line in lines if "valid/loss" in line]
    # Under the same noise each time, so that what falls is what was learnt.
    assert result["steps"] == 80 and len(losses) == 4
    # Most of 32 whitened channels are detail, which so small a network learns slowly.
    assert losses[-1] < 0.99 * losses[0]
    assert not (tmp_path / "export").exists()
    assert len(Repeated([1, 2, 3], 2)) == 2 and list(Repeated([1, 2, 3], 2)) == [1, 2]


@needs_font
def test_a_profile_says_where_the_time_goes(tmp_path: Path, own: Path) -> None:
    train(tiny_training(tmp_path, own, "debug=profile", "steps=2"))
    folder = next((tmp_path / "logs/train").iterdir())
    assert "aten::" in (folder / "profile.txt").read_text()
    assert "run_training_batch" in (folder / "fit-phases.txt").read_text()
    assert b"aten::" in gzip.decompress((folder / "trace.json.gz").read_bytes())
    with pytest.raises(UserError, match="at most 20 steps"):
        tiny_training(tmp_path, own, "profile=true", "steps=21")


def test_fast_is_fast_for_both() -> None:
    for task, more in (("generate", []), ("train", ["experiment=pocket/image"])):
        cfg = config._compose(task, [*more, "debug=fast"])
        assert cfg.steps == 8 and cfg.debug == "fast"
    assert "expected one of fast, profile" in config.check("generate", ["debug=overfit"])[0]
