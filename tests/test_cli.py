"""The command line: help at once, mistakes as one block, nothing done twice, nothing written elsewhere."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from images_that_speak import cli, config
from images_that_speak.files import read_json
from images_that_speak.resources import ROOT

TASK = '''
"""Stands in for what an entry script calls."""
import sys
from images_that_speak.runs import open_run

calls = []

def work(cfg):
    calls.append(cfg)
    with open_run(cfg, "generate") as run:
        if cfg.image_prompt == "fail":
            raise RuntimeError("broken on purpose")
        run.log({"loss": 1.0}, 1)
        return run.finish({"said": cfg.image_prompt, "torch": "torch" in sys.modules})


def train(cfg):
    calls.append(cfg)
    with open_run(cfg, "train") as run:
        if cfg.seed == 13:
            raise RuntimeError("broken on purpose")
        return run.finish({"steps": cfg.steps})
'''


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Call an entry script with arguments in this process: (exit code, what it printed, calls so far)."""
    (tmp_path / "stand_in.py").write_text(TASK)
    (tmp_path / "weights" / "pocket").mkdir(parents=True)
    (tmp_path / "weights" / "pocket" / "family.json").write_text("{}")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stand_in", raising=False)

    def run(*arguments: str, task: str = "generate") -> tuple[int, str, list]:
        places = [] if {"--help", "-h"} & set(arguments) else [
            f"paths.logs={tmp_path}/logs", f"paths.weights={tmp_path}/weights"]
        monkeypatch.setattr(sys, "argv", [f"{task}.py", *arguments, *places])
        code = 0
        try:
            cli.launch(task, "stand_in.train" if task == "train" else "stand_in.work")
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capfd.readouterr()
        calls = sys.modules["stand_in"].calls if "stand_in" in sys.modules else []
        return code, printed.out + printed.err, calls

    yield run
    # Hydra configures logging for the whole process.
    logger = logging.getLogger("images_that_speak")
    logger.handlers.clear()
    logger.propagate = True
    assert list((tmp_path / "here").iterdir()) == []  # nothing is written where the command was given


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("name", ["train", "generate", "evaluate"])
def test_an_entry_script_is_short_and_helps(name: str) -> None:
    assert len((ROOT / f"{name}.py").read_text().splitlines()) <= 40
    done = python("-X", "importtime", f"{name}.py", "--help")
    assert done.returncode == 0
    assert done.stdout.count(f"python {name}.py") >= 4  # usage and three examples
    for heavy in ("torch", "hydra", "numpy", "lightning"):
        assert f"| {heavy}" not in done.stderr
    for group in ("family", "reader") if name != "train" else ("experiment", "adapter"):
        assert f"\n  {group} " in done.stdout


def test_help_answers_in_half_a_second() -> None:
    """The quickest of five, for other processes may be at work."""
    def seconds() -> float:
        start = time.perf_counter()
        assert python("generate.py", "--help").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5


def test_help_names_every_option_with_its_default(call) -> None:
    _, printed, _ = call("--help")
    for line in ("image_prompt", "guidance.audio_weight", "paths.logs", "num_samples"):
        assert f"\n  {line} " in printed
    assert "the share of" not in printed.split("examples:")[0]
    assert printed.count("* ") >= 6  # the default of each group is marked


def test_the_corpus_builder_helps() -> None:
    done = python("-m", "images_that_speak.data", "--help")
    assert done.returncode == 0 and "data.words_per_prompt" in done.stdout


def test_mistakes_end_with_2_before_torch() -> None:
    code = ("import sys\n"
            "sys.argv = ['generate.py', 'image_promt=x', 'guidance.audio_weight=3', 'device=cpu']\n"
            "from images_that_speak.cli import launch\n"
            "try:\n    launch('generate', 'nowhere.work')\n"
            "except SystemExit as stop:\n"
            "    print(stop.code, 'torch' in sys.modules, 'lightning' in sys.modules)\n")
    done = python("-c", code)
    assert done.stdout.split() == ["2", "False", "False"]
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert "Did you mean 'image_prompt'?" in done.stderr and "guidance.audio_weight=3.0" in done.stderr


def test_runs_once_and_then_shows_its_result(call, tmp_path: Path) -> None:
    code, _, calls = call("image_prompt=it's a cat, grayscale")
    assert code == 0 and len(calls) == 1
    assert calls[0].image_prompt == "it's a cat, grayscale"
    code, printed, calls = call("image_prompt=it's a cat, grayscale", "seed=0", "batch_size=2")
    assert code == 0 and len(calls) == 1
    assert "finished already" in printed and "it's a cat, grayscale" in printed
    code, _, calls = call("image_prompt=it's a cat, grayscale", "fresh=true")
    assert len(calls) == 2
    folders = sorted(path.name for path in (tmp_path / "logs" / "generate").iterdir())
    assert len(folders) == 2 and folders[1] == folders[0] + ".2"


def test_a_finished_run_gets_its_report(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is made of the run just finished, or finished earlier, and does not make it another run."""
    (tmp_path / "reporting.py").write_text("asked = []\ndef write(folders):\n    asked.extend(folders)\n")
    monkeypatch.setitem(cli.REPORTS, "video", "reporting.write")
    call()
    import reporting

    assert reporting.asked == []
    code, printed, calls = call("report.video=true")
    assert code == 0 and len(calls) == 1 and "finished already" in printed
    call("report.video=true", "fresh=true")
    assert [folder.name.rpartition(".")[2] for folder in reporting.asked][1:] == ["2"]
    assert reporting.asked[0].name + ".2" == reporting.asked[1].name


def test_a_sweep_makes_a_run_of_each_and_is_finished_by_issuing_it_again(call, tmp_path: Path) -> None:
    sweep = ("-m", "seed=1,2", "image_prompt=a cat, two dogs")
    code, _, calls = call(*sweep)
    assert code == 0
    assert [(cfg.seed, cfg.image_prompt) for cfg in calls] == [
        (1, "a cat"), (1, "two dogs"), (2, "a cat"), (2, "two dogs")]
    (next((tmp_path / "logs" / "generate").glob("*seed-2*")) / "result.json").unlink()
    code, _, calls = call(*sweep)
    assert code == 0 and len(calls) == 5
    assert len(list((tmp_path / "logs" / "sweeps").iterdir())) == 1


def test_a_training_goes_on_with_other_settings(call, tmp_path: Path) -> None:
    """resume=DIR tells what differs, keeps what came out, and is itself finished by giving it again."""
    with pytest.raises(RuntimeError):
        call("model=vocos", "steps=10", "seed=13", task="train")
    folder = next((tmp_path / "logs" / "train").iterdir())
    code, printed, _ = call(f"resume={folder}", "seed=3", task="train")
    assert code == 0 and "  seed: 13 → 3" in printed and "steps: " not in printed
    code, printed, calls = call(f"resume={folder}", "steps=20", "seed=4", task="train")
    assert code == 0 and "  steps: 10 → 20" in printed and "  seed: 3 → 4" in printed
    assert (calls[-1].seed, calls[-1].steps, calls[-1].model._target_) == (4, 20, calls[0].model._target_)
    assert read_json(folder / "result.json") == {"steps": 20}
    assert read_json(folder / "result.2.json") == {"steps": 10}
    info = read_json(folder / "run.json")
    assert [command["changes"] for command in info["commands"]] == [
        [], ["seed: 13 → 3"], ["seed: 3 → 4", "steps: 10 → 20"]]
    assert info["hash"] in folder.name and info["changed"]["steps"] == 20
    card = (folder / "README.md").read_text()
    assert "steps: 10 → 20" in card and card.count("python train.py") == 4
    code, printed, calls = call(f"resume={folder}", "steps=20", task="train")
    assert code == 0 and "finished already" in printed and len(calls) == 3
    assert [path.name for path in (tmp_path / "logs" / "train").iterdir()] == [folder.name]
    # The first command still finds its folder, and is told that it has moved on.
    code, printed, calls = call("model=vocos", "steps=10", "seed=13", task="train")
    assert code == 0 and "its settings have changed since: seed: 4 → 13" in printed and len(calls) == 3


def test_weights_are_copied_where_the_command_says_and_nowhere_else(tmp_path: Path) -> None:
    """Also those of a run that is finished already, which is then not trained again."""
    shipped = tmp_path / "weights" / "pocket" / "image"
    table = shipped / "tokenizer" / "tokenizer.json"

    def train(*overrides: str) -> str:
        done = python("train.py", "experiment=pocket/tokenizer", f"paths.logs={tmp_path}/logs",
                      f"paths.weights={tmp_path}/weights", *overrides)
        assert done.returncode == 0, done.stderr
        return done.stdout

    train()
    assert not shipped.exists()
    assert "would replace" not in train("check=true")
    assert "would replace" in train("check=true", f"export={shipped}")
    assert not shipped.exists()
    train("model.vocab_size=400", f"export={shipped}")
    small = table.read_bytes()
    assert "finished already" in train() and table.read_bytes() == small
    printed = train(f"export={shipped}")
    assert "finished already" in printed and f"its weights were copied to {shipped}" in printed
    assert table.read_bytes() != small


def test_no_experiment_that_ships_writes_over_what_ships() -> None:
    for path in (ROOT / "configs/experiment").rglob("*.yaml"):
        name = path.relative_to(ROOT / "configs/experiment").with_suffix("")
        cfg = config._compose("train", [f"experiment={name}"])
        assert cfg.export is None and cfg.model.get("folder") is None, name


def test_what_cannot_be_resumed_is_explained(call, tmp_path: Path) -> None:
    call("seed=5")
    made = next((tmp_path / "logs" / "generate").iterdir())
    near = str(made)[:-1]
    for arguments, told in (
            ([f"resume={near}"], f"Did you mean '{made.name}'"),
            ([f"resume={made}"], "a run of generate; only a training"),
            (["-m", f"resume={made}", "seed=1,2"], "one by one"),
            (["model=vocos", "fresh=true", f"resume={made}"], "a run of generate")):
        code, printed, _ = call(*arguments, task="train")
        assert code == 2 and told in printed


def test_a_fault_of_the_program_keeps_its_traceback(call, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broken on purpose"):
        call("image_prompt=fail")
    folder = next((tmp_path / "logs" / "generate").iterdir())
    assert '"status": "failed"' in (folder / "run.json").read_text()
    assert not (folder / "result.json").exists()


def test_hydra_s_own_flags_work(call) -> None:
    code, printed, calls = call("--cfg", "job", "steps=7")
    assert code == 0 and "steps: 7" in printed and not calls


@pytest.mark.parametrize("order", [
    ("-m", "seed=1,2", "steps=3"), ("seed=1,2", "-m", "steps=3"), ("seed=1,2", "steps=3", "--multirun")])
def test_a_flag_may_stand_anywhere(call, order: tuple[str, ...]) -> None:
    code, printed, calls = call(*order)
    assert code == 0, printed
    assert [(cfg.seed, cfg.steps) for cfg in calls] == [(1, 3), (2, 3)]
    code, printed, _ = call("seed=4", "--cfg", "job", "steps=7")
    assert code == 0 and "steps: 7" in printed and "seed: 4" in printed
    assert cli.parted(["a=1", "--info", "b=2", "-i", "all", "-p", "x"]) == (
        ["a=1", "b=2"], ["--info", "-i", "all", "-p", "x"])


def test_a_prompt_is_taken_as_it_is_typed(call, tmp_path: Path) -> None:
    """Braces, quotes, and a byte of another encoding, which Python hands over as half of a pair."""
    typed = {"${seed} dollars": "${seed} dollars", '"cat" next to "dog"': '"cat" next to "dog"',
             "a caf\udce9": "a café"}
    for prompt, meant in typed.items():
        code, printed, calls = call(f"image_prompt={prompt}")
        assert code == 0 and calls[-1].image_prompt == meant, printed
        assert call(f"image_prompt={prompt}")[1].startswith("finished already")
    code, printed, _ = call("prompts=caf\udce9.csv")
    assert code == 2 and "not in UTF-8" in printed


def test_a_terminal_that_cannot_show_a_letter_ends_nothing() -> None:
    code = ("from images_that_speak.terminal import lenient\nlenient()\nprint('a … → b')\n")
    for encoding in ("ascii", "latin-1"):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=100,
                              env={**os.environ, "PYTHONIOENCODING": encoding})
        assert done.returncode == 0 and done.stdout == b"a ? ? b\n", done.stderr
    done = subprocess.run([sys.executable, "generate.py", "prompts=…", "check=true"], cwd=ROOT, timeout=100,
                          capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"})
    assert done.returncode == 2 and b"Traceback" not in done.stderr


def test_a_refusal_is_one_line(call, tmp_path: Path) -> None:
    """Also one that only the task could find: Hydra's echo of the command line is left out."""
    (tmp_path / "logs").write_text("a file where a folder should be")
    code, printed, _ = call("seed=1")
    assert code == 2 and printed.startswith("error: paths.logs=") and len(printed.splitlines()) == 1


def test_flags_are_no_overrides() -> None:
    words = ["-m", "seed=1", "--config-dir", "elsewhere", "steps=2"]
    assert cli.parted(words)[0] == ["seed=1", "steps=2"]
    assert config.is_multirun(words) and not config.is_multirun(words[1:])
