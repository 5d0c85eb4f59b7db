"""W&B offline, csv and TensorBoard, with real runs in a folder of the test."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from images_that_speak import config
from images_that_speak.audio.wave import write_wave
from images_that_speak.errors import UserError
from images_that_speak.files import read_json
from images_that_speak.runs import open_run
from images_that_speak.runs.identity import shortened
from images_that_speak.runs.samples import table_columns
from images_that_speak.runs.wandb import logged_in


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is logged in to W&B, and nobody is there to answer it."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE",
                 "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))


def put_sample(folder: Path, wer: float) -> None:
    picture = Image.fromarray(np.full((256, 1024), 90, np.uint8))
    picture.save(folder / "image.png")
    picture.save(folder / "spectrogram.png")
    write_wave(folder / "speech.wav", np.zeros(1600, np.float32))
    sample = {"sample_id": folder.name, "image_prompt": "a cat", "audio_prompt": "happy baby", "seed": 7,
              "settings": {"guidance": {"audio_weight": 0.4}}, "scores": {"wer": wer, "heard": "happy lady"}}
    (folder / "sample.json").write_text(json.dumps(sample))


def inspect(run: Path) -> list[dict]:
    """What the W&B logs of a run folder say, the oldest first."""
    logs = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json"]
    return [json.loads(subprocess.check_output([*command, str(log)])) for log in logs]


def test_wandb_offline_holds_the_samples_and_the_result(make_run, tmp_path: Path) -> None:
    with open_run(make_run("logger=wandb", "guidance.audio_weight=0.4"), "generate") as run:
        for name, wer in (("one", 0.5), ("two", 0.0)):
            put_sample(run.sample_dir(name), wer)
        run.log({"loss": 2.0}, 5)
        run.finish({"heard": {"wer": 0.25}})
    found, = inspect(run.dir)
    assert found["run_id"] == read_json(run.dir / "run.json")["wandb_id"]
    assert found["exit_code"] == 0 and found["project"] == "images-that-speak"
    assert found["summary"]["heard.wer"] == 0.25 and found["summary"]["loss"] == 2.0
    assert found["summary"]["samples"]["nrows"] == 2
    assert found["config"]["guidance"]["audio_weight"] == 0.4
    table = json.loads(next(run.dir.glob("wandb/offline-run-*/files/media/table/*.json")).read_text())
    # What is the same for all (guidance.audio_weight) stands in the config.
    assert table["columns"] == ["sample_id", "image", "spectrogram", "audio", "score/wer", "score/heard",
                                "image_prompt", "audio_prompt", "seed"]
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (row["sample_id"], row["seed"], row["score/wer"]) == ("one", 7, 0.5)
    assert row["score/heard"] == "happy lady"
    panel = found["summary"]["pictures"]
    assert panel["count"] == 2
    assert panel["captions"][0] == "a cat | says happy baby | heard happy lady | WER 50 %"
    staged = [path for path in (run.dir / "wandb/artifacts").rglob("*") if path.is_file()]
    assert any(path.read_bytes()[1:4] == b"PNG" for path in staged)  # `wandb sync` finds the media here
    assert not (tmp_path / "home" / ".local").exists()


def test_a_table_shows_what_differs_and_what_came_out() -> None:
    rows = [{"sample_id": str(n), "image_prompt": "a cat", "seed": 7, "steps": 8, "guidance.image_scale": n,
             "score/speech_reader": "ctc", "score/wer": 0.5, "score/clip": None} for n in range(3)]
    assert table_columns([*rows[0]], rows) == ["score/wer", "image_prompt", "seed", "guidance.image_scale"]
    rows[1]["score/speech_reader"] = "whisper"
    assert table_columns([*rows[0]], rows)[0] == "score/speech_reader"
    assert table_columns([*rows[0]], rows[:1]) == ["score/wer", "image_prompt", "seed"]


@pytest.mark.parametrize(("words", "name"), [
    (["a" * 30 + "-1", "b" * 30 + "-2", "c" * 30 + "-3"], "a" * 30 + "-1+" + "b" * 30 + "-2"),
    (["prompt-" + "-".join(["word"] * 30)], "prompt" + "-word" * 14), (["x" * 100], "x" * 80),
    (["a" * 38 + "-1", "b" * 37 + "-2"], "a" * 38 + "-1+" + "b" * 37 + "-2"),
])
def test_a_long_name_is_cut_between_words(words: list[str], name: str) -> None:
    assert shortened("+".join(words)) == name and len(name) <= 80


def test_wandb_goes_on_with_the_same_run_and_tells_a_crash(make_run) -> None:
    with pytest.raises(RuntimeError):
        with open_run(make_run("logger=wandb"), "generate") as run:
            run.log({"loss": 2.0}, 1)
            raise RuntimeError("broken on purpose")
    with open_run(make_run("logger=wandb"), "generate") as again:
        again.log({"loss": 1.0}, 2)
        again.finish({})
    first, second = inspect(run.dir)
    assert again.dir == run.dir
    assert first["run_id"] == second["run_id"]
    assert (first["exit_code"], second["exit_code"]) == (1, 0)


KILLED = """
import os, signal, sys
from images_that_speak import config
from images_that_speak.runs import open_run

cfg = config._compose("generate", sys.argv[1:])
with open_run(cfg, "generate") as run:
    for step in range(150):
        run.log({"loss": step / 10, "other": step}, step)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def history(run: Path) -> dict[int, dict[str, float]]:
    """{step: figures} of all logs of a run together."""
    found: dict[int, dict[str, float]] = {}
    for log in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for step, name, value in logged_values(log):
            assert found.setdefault(step, {}).setdefault(name, value) == value
    return found


def logged_values(path: Path) -> list[tuple[int, str, float]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    records = map(json.loads, subprocess.check_output(command, text=True).splitlines())
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [(int(item["trainer/global_step"]), name, item[name]) for item in items
            for name in ("loss", "other") if name in item]


def test_what_a_kill_kept_from_wandb_is_logged_again(make_run, tmp_path: Path) -> None:
    cfg = make_run("logger=wandb")
    overrides = [f"paths.logs={tmp_path}/logs", f"paths.weights={tmp_path}/weights", "logger=wandb"]
    # With a service of its own, not that of the tests before.
    alone = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    subprocess.run([sys.executable, "-c", KILLED, *overrides], capture_output=True, timeout=300, env=alone)
    folder, = (tmp_path / "logs/generate").iterdir()
    log, = folder.glob("wandb/offline-run-*/*.wandb")
    # How much of it had been written is a matter of luck: half.
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    before = history(folder)
    assert 0 < len(before) < 150
    with open_run(cfg, "generate") as run:
        assert run.dir == folder
        run.log({"loss": 15.0, "other": 150}, 150)
        run.finish({})
    assert history(folder) == {step: {"loss": step / 10, "other": step} for step in range(151)}
    assert len([*logged_values(sorted(folder.glob("wandb/offline-run-*/*.wandb"))[-1])]) == 2 * (
        151 - len(before))


def test_what_wandb_refuses_is_one_line(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("no such thing\nand more")

    monkeypatch.setattr(wandb, "init", refuse)
    with open_run(make_run("logger=wandb"), "generate") as run:
        with pytest.raises(UserError, match=r"logger.wandb: W&B refuses this run \(no such thing\)"):
            run.log({"loss": 1.0}, 1)
        monkeypatch.undo()


def test_the_saved_view_wants_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces")
    import wandb_workspace

    with pytest.raises(UserError, match="not logged in to W&B.*--spec FILE"):
        wandb_workspace.main(["--entity", "team"])
    monkeypatch.setattr(wandb_workspace, "logged_in", lambda: True)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(type(wandb_workspace.workspace("team", "p")), "save",
                        lambda self: (_ for _ in ()).throw(ConnectionError("nobody answers")))
    with pytest.raises(UserError, match="--entity team.*nobody answers"):
        wandb_workspace.main(["--entity", "team"])


def test_wandb_serves_a_training_through_lightning(make_run) -> None:
    with open_run(make_run("logger=[wandb,tensorboard]"), "generate") as run:
        wandb_logger, tensorboard = run.loggers
        wandb_logger.log_metrics({"train/loss": 0.5}, step=10)
        tensorboard.log_metrics({"train/loss": 0.5}, step=10)
        assert wandb_logger.experiment is run.wandb
        run.finish({})
    found, = inspect(run.dir)
    assert found["summary"]["train/loss"] == 0.5 and found["summary"]["trainer/global_step"] == 10
    assert list((run.dir / "tensorboard").glob("events.*"))


def test_logged_in_is_a_key_or_an_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert logged_in()


def test_csv_has_metrics_and_samples(make_run) -> None:
    with open_run(make_run("logger=csv"), "generate") as run:
        put_sample(run.sample_dir("one"), 0.5)
        run.log({"loss": 2.0}, 1)
        run.log({"score": 1.0}, 2)
        run.finish({})
    metrics = list(csv.DictReader((run.dir / "metrics.csv").open()))
    assert metrics == [{"step": "1", "loss": "2.0", "score": ""}, {"step": "2", "loss": "", "score": "1.0"}]
    sample, = csv.DictReader((run.dir / "samples.csv").open())
    assert sample["image_prompt"] == "a cat"
    assert (sample["guidance.audio_weight"], sample["score/wer"]) == ("0.4", "0.5")


def test_tensorboard_shows_the_samples(make_run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_run(make_run("logger=tensorboard"), "generate") as run:
        put_sample(run.sample_dir("one"), 0.5)
        run.finish({})
    events = EventAccumulator(str(run.dir / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert set(tags["images"]) == {"samples/one/image", "samples/one/spectrogram"}
    assert tags["audio"] == ["samples/one/speech"]


def test_samples_of_several_runs_are_told_apart(make_run, tmp_path: Path) -> None:
    """As an evaluation of two runs of the same prompts logs them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = [tmp_path / name / "samples/one" for name in ("a", "b")]
    for folder, wer in zip(folders, (0.5, 0.0), strict=True):
        folder.mkdir(parents=True)
        put_sample(folder, wer)
    with open_run(make_run("logger=[tensorboard,csv]"), "evaluate") as run:
        run.log_samples(folders)
        run.finish({})
    events = EventAccumulator(str(run.dir / "tensorboard"))
    events.Reload()
    assert events.Tags()["audio"] == [f"samples/{name}/samples/one/speech" for name in "ab"]
    rows = csv.DictReader((run.dir / "samples.csv").open())
    assert {row["sample_id"]: float(row["score/wer"]) for row in rows} == {
        "a/samples/one": 0.5, "b/samples/one": 0.0}


def test_without_a_logger_only_the_plain_files_are_written(make_run) -> None:
    with open_run(make_run(), "generate") as run:
        put_sample(run.sample_dir("one"), 0.5)
        run.log({"loss": 2.0}, 1)
        run.finish({})
    # Where the checkout has changes of its own, they are kept as well.
    assert {path.name for path in run.dir.iterdir() if not path.name.startswith("code-")} == {
        ".lock", "run.json", "config.yaml", "metrics.jsonl", "samples", "README.md", "result.json"}
    assert run.wandb is None


def records(run: Path) -> list[dict]:
    """Every record of a run folder's W&B log, by W&B's own reader."""
    log, = run.glob("wandb/offline-run-*/*.wandb")
    lines = subprocess.check_output([sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)])
    return [json.loads(line) for line in lines.splitlines()]


def test_artifacts_lead_from_training_to_evaluation(make_run, tmp_path: Path) -> None:
    """The run that uses something declares what the run that made it logged: name, kind and content."""
    places = [f"paths.logs={tmp_path}/logs", "logger=wandb"]
    with open_run(config._compose("train", [*places, "model=vocos"]), "train") as trained:
        (trained.dir / "weights/adapter").mkdir(parents=True)
        (trained.dir / "weights/pytorch_lora_weights.safetensors").write_bytes(b"123")
        (trained.dir / "weights/adapter/config.json").write_text("{}")
        trained.finish({"valid/loss": 0.5})
    with open_run(make_run("logger=wandb", f"family.lora={trained.dir}/weights"), "generate") as made:
        put_sample(made.sample_dir("one"), 0.5)
        made.finish({})
    with open_run(config._compose("evaluate", [*places, f"run={made.dir}"]), "evaluate") as read:
        (made.dir / "samples/one/sample.json").write_text("{}")  # scores change; the pictures do not
        read.finish({})
    logged = [{record["artifact"]["type"]: record["artifact"] for record in records(run.dir)
               if record["type"] == "artifact"} for run in (trained, made, read)]
    adapters, pictures = ([found[kind] for found in logged if kind in found]
                          for kind in ("adapter", "pictures"))
    for maker, user in (adapters, pictures):
        assert (maker["name"], maker["digest"]) == (user["name"], user["digest"])
        assert user["use_after_commit"] and not maker.get("use_after_commit")
    assert json.loads(adapters[0]["metadata"])["valid/loss"] == 0.5
    run, = [record["run"] for record in records(made.dir) if record["type"] == "run"]
    assert run["display_name"] == made.dir.name.split("__")[0] and run["job_type"] == "generate"


def test_an_agent_s_run_is_the_run(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `wandb agent` the id is the agent's, also where the folder has one of its own."""
    with open_run(make_run("logger=wandb"), "generate") as run:
        own = run.wandb.id
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "theagents")
    with open_run(make_run("logger=wandb"), "generate") as run:
        assert run.wandb.id == "theagents" != own
        run.finish({})
    assert read_json(run.dir / "run.json")["wandb_id"] == "theagents"


def test_the_sweep_for_agents_fits(make_run) -> None:
    """What `wandb agent` makes of docs/wandb_sweep.yaml is a command of ours, its metric a figure of ours."""
    import yaml
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    from images_that_speak.objectives import declared
    from images_that_speak.resources import ROOT

    sweep = yaml.safe_load((ROOT / "docs/wandb_sweep.yaml").read_text())
    least = {key: {"value": given.get("value", given.get("min", (given.get("values") or [None])[0]))}
             for key, given in sweep["parameters"].items()}
    arguments = create_sweep_command_args({"args": least})["args_no_hyphens"]
    assert config.check("generate", [*arguments, "logger=wandb"]) == []
    assert declared(make_run(), "generate")[sweep["metric"]["name"]] == sweep["metric"]["goal"]
    assert sweep["command"][2:4] == ["${program}", "${args_no_hyphens}"]


def test_the_saved_view_compares(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    from wandb_workspace import main

    main(["--entity", "team", "--spec", str(tmp_path / "view.json")])
    view = read_json(tmp_path / "view.json")
    text = json.dumps(view["spec"])
    assert view["displayName"] == "Images that Speak"
    panels = [panel for section in view["spec"]["section"]["panelBankConfig"]["sections"]
              for panel in section["panels"]]
    scatter = {(panel["config"]["xAxis"], panel["config"]["yAxis"]) for panel in panels
               if panel["viewType"] == "Scatter Plot"}
    assert ("summary:clip", "summary:wer") in scatter
    assert {y for x, y in scatter if "audio_weight" in x} == {"summary:wer", "summary:clip"}
    for name in ("train/loss", "valid/loss", "samples", "trainer/global_step"):
        assert name in text
