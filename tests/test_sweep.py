"""Sweeps: one folder, failures that stop nobody, nothing made twice, launchers, searches that survive a kill.

The jobs are stand-ins without torch; what they stand in for has tests of its own.
"""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from images_that_speak import cli, config, kept, objectives
from images_that_speak.figures import FIGURES, READ_BACK, declared_by
from images_that_speak.files import read_json
from images_that_speak.resources import ROOT
from images_that_speak.runs.sweep import sweep_name, table
from images_that_speak.validate import problems

TASK = '''
import os, signal, time
from pathlib import Path
from images_that_speak.runs import open_run

calls = []

def work(cfg):
    calls.append(cfg)
    if cfg.seed == 8:
        raise ValueError("before its folder was there")
    with open_run(cfg, "generate") as run:
        if cfg.seed == 7 or cfg.seed == 9 and not Path(os.environ["MENDED"]).exists():
            raise RuntimeError("broken on purpose")
        if os.environ.get("KILL_AT") == str(len(calls)):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("SECONDS", 0)))
        weight = cfg.guidance.audio_weight
        return run.finish({"wer": (weight - 0.4) ** 2, "clip": weight, "pid": os.getpid(),
                           "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")})
'''
SCRIPT = 'from images_that_speak.cli import launch\n\nlaunch("generate", "stand_in.work")\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stand_in.py").write_text(TASK)
    (tmp_path / "generate.py").write_text(SCRIPT)
    (tmp_path / "weights" / "pocket").mkdir(parents=True)
    (tmp_path / "weights" / "pocket" / "family.json").write_text("{}")
    monkeypatch.setenv("MENDED", str(tmp_path / "mended"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


@pytest.fixture
def call(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Call `generate.py -m` in this process: (exit code, what it printed, the number of jobs that ran)."""
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "stand_in", raising=False)

    def run(*arguments: str, task: str = "generate") -> tuple[int, str, int]:
        before = len(sys.modules["stand_in"].calls) if "stand_in" in sys.modules else 0
        monkeypatch.setattr(sys, "argv", [f"{task}.py", "-m", *arguments, *places(here)])
        code = 0
        try:
            cli.launch(task, "stand_in.work")
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capfd.readouterr()
        ran = len(sys.modules["stand_in"].calls) if "stand_in" in sys.modules else 0
        return code, printed.out + printed.err, ran - before

    yield run
    kept.keep(False)
    logger = logging.getLogger("images_that_speak")
    logger.handlers.clear()
    logger.propagate = True


def places(here: Path) -> list[str]:
    return [f"paths.logs={here}/logs", f"paths.weights={here}/weights", "device=cpu"]


def process(here: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(here / "generate.py"), "-m", *places(here), *arguments]
    return subprocess.run(command, cwd=here, env={**os.environ, **environment}, capture_output=True,
                          text=True, timeout=500)


def the_sweep(here: Path) -> Path:
    folder, = (here / "logs" / "sweeps").iterdir()
    return folder


# --- one folder

def test_a_sweep_is_named_by_its_keys_and_what_is_fixed() -> None:
    name = sweep_name("generate", ["guidance.audio_weight=0.3,0.5", "steps=10", "seed=range(0,4)"])
    assert name.startswith("audio_weight+seed__")
    same = [["steps=10", "guidance.audio_weight=0.3,0.5,0.7", "seed=1,2"],
            ["steps=10", "guidance.audio_weight=interval(0,1)", "seed=1,2", "device=cpu", "paths.logs=/x",
             "hydra/launcher=local", "hydra.launcher.n_jobs=4", "logger=wandb"]]
    hashes = {sweep_name("generate", overrides).split("__")[1] for overrides in same}
    assert hashes == {name.split("__")[1]}
    for other in (["steps=20", *same[0][1:]], same[0][:2], [*same[0], "hydra/sweeper=optuna"]):
        assert sweep_name("generate", other).split("__")[1] not in hashes
    assert sweep_name("evaluate", same[0]) != sweep_name("generate", same[0])


def test_a_table_has_the_values_that_were_swept_in_the_order_given(call, here: Path) -> None:
    """Also where a value is the default: a column of numbers is one of numbers."""
    default = config.defaults("generate").guidance.audio_weight
    code, printed, ran = call("seed=0,1", f"guidance.audio_weight=0.25,{default}",
                              "composition=weighted_average")
    assert code == 0 and ran == 4
    rows = list(csv.DictReader((the_sweep(here) / "jobs.csv").open()))
    assert list(rows[0])[:3] == ["seed", "guidance.audio_weight", "status"]
    assert {(int(row["seed"]), float(row["guidance.audio_weight"])) for row in rows} == {
        (seed, weight) for seed in (0, 1) for weight in (0.25, default)}
    assert "default" not in printed
    assert printed.splitlines()[-6].split()[:2] == ["seed", "audio_weight"]


def test_a_swept_group_stands_where_it_was_given(call, here: Path) -> None:
    code, _, _ = call("seed=1,2", "composition=weighted_average,split")
    swept = read_json(the_sweep(here) / "sweep.json")["swept"]
    assert code == 0 and swept[:2] == ["seed", "composition._target_"]


def test_failures_are_recorded_and_the_others_go_on(call, here: Path) -> None:
    code, printed, ran = call("seed=7,8,9,1", "guidance.audio_weight=0.3,0.5")
    assert code == 1 and ran == 8 and "6 jobs failed" in printed
    jobs = read_json(the_sweep(here) / "sweep.json")["jobs"]
    assert [job["status"] for job in jobs].count("finished") == 2
    errors = {job["changed"]["seed"]: job["error"] for job in jobs if job["status"] == "failed"}
    assert errors[7] == errors[9] == "RuntimeError: broken on purpose"
    assert errors[8] == "ValueError: before its folder was there"
    for job in jobs:
        folder = the_sweep(here) / job["folder"]
        assert (folder / "result.json").exists() == (job["status"] == "finished")
        assert ("Traceback" in read_json(folder / "run.json").get("traceback", "")) == (
            job["status"] == "failed")
        assert (the_sweep(here) / job["name"]).resolve() == folder.resolve()
    # Issued again, narrower and mended, only what is missing runs.
    (here / "mended").touch()
    code, printed, ran = call("seed=9,1", "guidance.audio_weight=0.3,0.5")
    assert code == 0 and ran == 2 and printed.count("finished already") == 2
    # Widened, it is the same sweep.
    code, _, ran = call("seed=9,1,2", "guidance.audio_weight=0.3,0.5")
    assert code == 0 and ran == 2
    sweep = read_json(the_sweep(here) / "sweep.json")
    assert sweep["swept"] == ["seed", "guidance.audio_weight"] and len(sweep["commands"]) == 3
    rows = list(csv.DictReader((the_sweep(here) / "jobs.csv").open()))
    assert len(rows) == 10
    assert {(row["seed"], row["guidance.audio_weight"], row["wer"]) for row in rows} >= {
        ("2", "0.3", str((0.3 - 0.4) ** 2)), ("7", "0.5", "")}
    card = (the_sweep(here) / "README.md").read_text()
    assert "| 9 | 0.5 | finished |" in card and "ValueError: before its folder was there" in card


def test_a_run_made_alone_joins_the_sweep(call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", "seed=1", *places(here)])
    cli.launch("generate", "stand_in.work")
    code, _, ran = call("seed=1,2")
    assert code == 0 and ran == 1
    assert len(read_json(the_sweep(here) / "sweep.json")["jobs"]) == 2


def test_a_job_s_command_makes_it_alone(call, here: Path) -> None:
    call("seed=1,2", "image_prompt=two cats")
    info = read_json(next(the_sweep(here).glob("seed-2*")) / "run.json")
    command = info["commands"][-1]
    assert command["overrides"][0] == "seed=2" and command["command"].startswith("python generate.py seed=2 ")
    assert "-m" not in command["command"] and "sweep" not in command["command"]


@pytest.mark.parametrize(("arguments", "told"), [
    (["model=vocos", "seed=1,2", "+trainer.strategy=ddp"], "trainer.strategy=ddp with -m"),
    (["model=vocos", "seed=1,2", "trainer.devices=2"], "expected trainer.devices=1"),
    (["model=vocos", "seed=1,2", "trainer.devices=1,2"], "trainer.devices=2 with -m"),
])
def test_distributed_training_is_no_job_of_a_sweep(call, arguments: list[str], told: str) -> None:
    code, printed, ran = call(*arguments, task="train")
    assert code == 2 and told in printed and ran == 0


@pytest.mark.parametrize(("arguments", "told"), [
    (["guidance.audio_weight=interval(0,1)"], "hydra/sweeper=optuna"),
    (["hydra/sweeper=optuna", "guidance.audio_weight=interval(0,2)"], "guidance.audio_weight=2.0: expected"),
    (["hydra/sweeper=optuna", "guidance.audio_weight=interval(0,1)", "optimized_metrics=[were]"],
     "optimized_metrics: 'were' is no figure of this run; expected some of seconds, wer"),
    (["hydra/sweeper=optuna", "guidance.audio_weight=interval(0,1)", "optimized_metrics=[]"],
     "names nothing to optimise"),
    (["hydra/sweeper=optuna", "guidance.audio_weight=interval(0,1)", "hydra.sweeper.sampler=tpf"],
     "Did you mean 'tpe'"),
    (["hydra/sweeper=optuna", "seed=3"], "nothing to search"),
])
def test_a_search_is_checked_before_anything_runs(call, arguments: list[str], told: str) -> None:
    code, printed, ran = call(*arguments)
    assert code == 2 and told in printed and ran == 0


# --- figures

def test_the_declared_figures_are_those_of_a_result() -> None:
    from images_that_speak.scoring.statistics import score_sample, totals

    rows = [{"image_prompt": "a", "audio_prompt": "cat", **score_sample("cat", "cat", 20.0, True),
             "noun_mass": 0.5, "top1_agreement": True, "top5_agreement": True}]  # of a classifier
    told = {figure.key for figure in READ_BACK if not figure.key.startswith("second_")} - {"evaluations"}
    assert set(totals(rows, 0)) == {"samples", *told}


@pytest.mark.parametrize(("metrics", "names"), [
    ("stoi", {"stoi"}), ("pairs", {"ssim", "hss", "stoi", "mcd_dtw"}), ("fad_mel", {"fad_mel", "kad_mel"}),
    ("fid_pocket", {"fid_pocket", "kid_pocket"}), ("fid", {"fid", "kid"}), ("fad", {"fad_clap", "kad_clap"}),
    ("clap", {"clap"}), ("pesq", {"pesq"}),
    ("dnsmos", {"dnsmos_p808", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovr"}),
])
def test_an_evaluation_declares_what_its_metrics_measure(metrics: str, names: set[str]) -> None:
    cfg = config._compose("evaluate", [f"metrics={metrics}", "optimized_metrics=[wer]"])
    found = objectives.measured(cfg)
    assert {figure.key for figure in found} == names
    assert all(FIGURES[figure.key] == figure for figure in found)
    cfg.optimized_metrics = [*names]
    assert not objectives.undeclared(cfg, "evaluate")
    cfg.metrics = None
    assert all("is no figure of this run" in told for told in objectives.undeclared(cfg, "evaluate"))


def test_a_search_over_pictures_takes_what_metrics_measure() -> None:
    cfg = config._compose("generate", ["metrics=stoi", "optimized_metrics=[wer,stoi]"])
    assert not objectives.undeclared(cfg, "generate") and not problems(cfg, "generate")
    cfg.reader = None
    assert any(told.startswith("metrics=stoi: nothing is read back") for told in problems(cfg, "generate"))
    cfg = config._compose("generate", ["optimized_metrics=[stoi]"])
    assert "metrics=stoi measures it" in objectives.undeclared(cfg, "generate")[0]


def test_a_sweep_of_evaluations_tells_what_was_measured() -> None:
    jobs = [{"name": name, "folder": name, "status": "finished", "settings": {"run": name}, "error": None,
             "result": {"wer": 0.5, "stoi": stoi, "fid": 9.5}} for name, stoi in (("a", 0.25), ("b", None))]
    columns, rows = table(jobs)
    assert columns == ["run", "status", "wer", "stoi", "fid", "run"]
    assert [row["stoi"] for row in rows] == [0.25, None]


def test_a_figure_of_a_metric_that_is_not_chosen_names_the_metric() -> None:
    cfg = config._compose("evaluate", ["optimized_metrics=[stoi]"])
    assert "metrics=stoi measures it" in objectives.undeclared(cfg, "evaluate")[0]


@pytest.mark.parametrize(("reader", "name", "told"), [
    ("reader.picture=efficientnet", "clip", "reader.picture=clip"), ("reader=whisper", "clip", "no CLIP"),
    ("reader=ctc", "noun_mass", "reader.picture=efficientnet"),
    ("reader=whisper", "top5_agreement", None), ("reader=ctc", "clip", None),
])
def test_a_figure_that_the_reader_of_pictures_does_not_tell(reader: str, name: str, told: str | None) -> None:
    cfg = config._compose("evaluate", [reader, f"optimized_metrics=[{name}]"])
    found = objectives.undeclared(cfg, "evaluate")
    assert told in found[0] if told else not found


def test_figures_that_are_missing_are_no_numbers() -> None:
    assert objectives.figures(["wer", "clip"], {"wer": 0.5, "clip": 2}) == (0.5, 2.0)
    assert objectives.figures([], {"wer": 0.5}) is None
    for result in ({"wer": 0.5}, {"wer": 0.5, "clip": None}, {"wer": 0.5, "clip": float("nan")}):
        wer, clip = objectives.figures(["wer", "clip"], result) or ()
        assert wer == 0.5 and clip != clip


@pytest.mark.parametrize(("arguments", "told"), [
    (["optimized_metrics=[top1]"], "'top1' would be missing: one image prompt"),
    (["optimized_metrics=[wer,clip]", "reader=ctc", "reader.picture=null"],
     "'clip' would be missing: nobody looks"),
])
def test_a_figure_that_no_run_will_have_is_refused(call, arguments: list[str], told: str) -> None:
    code, printed, ran = call("hydra/sweeper=optuna", "guidance.audio_weight=interval(0,1)", *arguments)
    assert code == 2 and told in printed and ran == 0


def test_a_training_without_validation_has_no_figure_of_it() -> None:
    target = "images_that_speak.training.diffusion.LatentDiffusionTraining"
    cfg = OmegaConf.create({"model": {"_target_": target}, "data": {"valid": None},
                            "optimized_metrics": ["valid/loss"]})
    assert "data.valid is null" in objectives.undeclared(cfg, "train")[0]
    cfg.data.valid = {"root": "x"}
    assert not objectives.undeclared(cfg, "train")


def test_a_search_by_nothing_ends_and_says_so(call, here: Path) -> None:
    prompts = here / "pairs.csv"
    prompts.write_text("image_prompt,audio_prompt\na cat,happy baby\ntwo dogs,happy baby\n")
    code, printed, ran = call("hydra/sweeper=optuna", "hydra.sweeper.trials=8", "optimized_metrics=[top1]",
                              "guidance.audio_weight=interval(0,1)", f"prompts={prompts}")
    assert code == 2 and ran == 3
    assert "trial 0: its run gave no top1" in printed and "there is nothing to search by" in printed
    assert "best:" not in printed


def test_a_training_has_the_figures_of_its_module() -> None:
    target = "images_that_speak.training.vocoder.VocoderTraining"
    cfg = OmegaConf.create({"model": {"_target_": target},
                            "optimized_metrics": ["valid/mel_err"]})
    assert "Did you mean 'valid/mel_error'" in objectives.undeclared(cfg, "train")[0]
    cfg.model = {"job": "images_that_speak.training.jobs.bind"}
    assert "no figure" in objectives.undeclared(cfg, "train")[0]


def test_every_training_that_ships_declares_its_figures() -> None:
    """All but those that measure nothing; and each name is one that its source gives a figure."""
    targets = {target for path in (ROOT / "configs").rglob("*.yaml") for target in re.findall(
        r"images_that_speak\.training\.\w+\.(?:\w+Training\b|(?<=jobs\.)\w+)", path.read_text())}
    for target in targets:
        module, name = target.split(".")[2:]
        text = (ROOT / f"src/images_that_speak/training/{module}.py").read_text()
        figures = declared_by(config.locate(target))
        assert bool(figures) == (name not in ("tokenizer", "bind")), target
        for figure in figures:
            # Where it is declared, and where it comes from.
            assert len(re.findall(rf"\b{figure.key.split('/')[-1]}\b", text)) > 1, figure


# --- Optuna

@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_goes_on_after_a_kill(call, here: Path, sampler: str) -> None:
    """Killed at its third job, the same command makes that one first, and then what is missing of all."""
    search = ("hydra/sweeper=optuna", f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.trials=5",
              "hydra.sweeper.population=2", "guidance.audio_weight=interval(0,1)", "seed=1,2")
    if sampler == "tpe":
        assert process(here, *search, KILL_AT="3").returncode == -signal.SIGKILL
        killed = [path for path in (here / "logs" / "generate").iterdir()
                  if not (path / "result.json").exists()]
        assert len(killed) == 1
        code, printed, ran = call(*search)
        assert code == 0 and ran == 3
        first = printed.split("#0 : ")[1].splitlines()[0]
        info = read_json(killed[0] / "run.json")
        assert f"guidance.audio_weight={info['changed']['guidance.audio_weight']}" in first
        assert info["status"] == "finished" and len(info["commands"]) == 2
    else:
        code, _, ran = call(*search)
        assert code == 0 and 2 <= ran <= 5  # a child may be as its parent was, and is not made again
    folder = the_sweep(here)
    jobs = [job["result"] for job in read_json(folder / "sweep.json")["jobs"]]
    assert len(jobs) == (5 if sampler == "tpe" else ran)
    best = read_json(folder / "best.json")
    assert best["metrics"] == {"wer": "minimize", "clip": "maximize"}
    # Nothing in the front is beaten in both, and what is not in it is.
    points = {(job["wer"], job["clip"]) for job in jobs}
    front = {point for point in points
             if not any(w <= point[0] and c >= point[1] and (w, c) != point for w, c in points)}
    assert {(entry["values"]["wer"], entry["values"]["clip"]) for entry in best["best"]} == front
    code, _, ran = call(*search)
    assert code == 0 and ran == 0


def test_a_search_tries_what_failed_once_more(call, here: Path) -> None:
    search = ("hydra/sweeper=optuna", "hydra.sweeper.trials=4", "hydra.sweeper.seed=0", "seed=range(9,11)",
              "optimized_metrics=[wer]", "guidance.audio_weight=interval(0.2,0.6)")
    code, _, ran = call(*search)
    assert code == 1 and ran == 4
    failed = [job["name"] for job in read_json(the_sweep(here) / "sweep.json")["jobs"]
              if job["status"] == "failed"]
    assert failed
    (here / "mended").touch()
    code, _, ran = call(*search)
    jobs = read_json(the_sweep(here) / "sweep.json")["jobs"]
    assert code == 0 and ran == len(failed) and {job["status"] for job in jobs} == {"finished"}
    assert len(read_json(the_sweep(here) / "best.json")["best"]) == 1


# --- launchers

def plugin(name: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(f"hydra_plugins.{name}") is not None
    return pytest.mark.skipif(not there, reason=f"{name} is not installed")


@plugin("hydra_joblib_launcher")
def test_jobs_side_by_side_have_a_gpu_each(here: Path) -> None:
    done = process(here, "hydra/launcher=local", "seed=1,7,2,3", "device=auto", CUDA_VISIBLE_DEVICES="4,6",
                   SECONDS="0.5")
    assert done.returncode == 1, done.stderr
    jobs = read_json(the_sweep(here) / "sweep.json")["jobs"]
    assert [job["status"] for job in jobs].count("finished") == 3
    assert [job["error"] for job in jobs if job["error"]] == ["RuntimeError: broken on purpose"]
    gpu_of = {job["result"]["pid"]: job["result"]["gpu"] for job in jobs if job["result"]}
    assert len(gpu_of) == 2 and sorted(gpu_of.values()) == ["4", "6"]


@plugin("hydra_joblib_launcher")
def test_jobs_end_with_the_sweep_that_launched_them(here: Path) -> None:
    command = [sys.executable, here / "generate.py", "-m", "hydra/launcher=local", "seed=1,2,3,4",
               f"paths.logs={here}/logs", f"paths.weights={here}/weights"]
    began = subprocess.Popen(command, cwd=here, env={**os.environ, "SECONDS": "120"},
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        workers = eventually(lambda: found if len(found := working(here / "logs")) == 2 else None, 60)
        assert workers and all(map(alive, workers))
    finally:
        began.kill()
        began.wait()
    assert eventually(lambda: not any(map(alive, workers)), 20), "workers outlived their sweep"


def working(logs: Path) -> list[int]:
    """The processes that hold run folders below `logs`."""
    texts = [path.read_text() for path in logs.glob("generate/*/.lock")]
    return [int(text.split()[1]) for text in texts if text]


def alive(process: int) -> bool:
    """Whether it runs; one that ended and was not asked for its exit code does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(condition: Callable[[], Any], seconds: float) -> Any:
    """What `condition` gives as soon as that is true, or at last."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_sweep_says_in_one_line_where_it_cannot_write(here: Path, launcher: str) -> None:
    (here / "logs").write_text("a file where a folder should be")
    done = process(here, f"hydra/launcher={launcher}", "seed=1,2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    for part in ("cannot be written", str(here / "logs"), "paths.logs"):
        assert part in done.stderr


@plugin("hydra_submitit_launcher")
def test_jobs_go_through_submitit(here: Path) -> None:
    done = process(here, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "seed=1,7")
    assert done.returncode == 1, done.stderr
    jobs = read_json(the_sweep(here) / "sweep.json")["jobs"]
    assert {job["changed"]["seed"]: job["status"] for job in jobs} == {1: "finished", 7: "failed"}


@pytest.mark.parametrize(("launcher", "module"), [
    ("local", "hydra_joblib_launcher"), ("slurm", "hydra_submitit_launcher"),
    ("ray_cluster", "hydra_ray_launcher")])
def test_a_launcher_composes_or_says_what_it_needs(launcher: str, module: str) -> None:
    found = config.check("generate", [f"hydra/launcher={launcher}", "seed=1,2"], multirun=True)
    found = [line for line in found if "launcher" in line]
    if importlib.util.find_spec(f"hydra_plugins.{module}"):
        assert not found
    else:
        assert len(found) == 1 and "pip install" in found[0]


@pytest.mark.skipif(importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None,
                    reason="hydra_ray_launcher is not installed")
def test_jobs_go_through_ray(here: Path) -> None:
    # Ray's sockets lie in the temporary folder, and a socket's path has at most 107 bytes.
    done = process(here, "hydra/launcher=ray_cluster", "+hydra.launcher.ray.init.num_cpus=2", "seed=1,7",
                   TMPDIR="/tmp")
    assert done.returncode == 1, done.stderr
    jobs = read_json(the_sweep(here) / "sweep.json")["jobs"]
    assert {job["changed"]["seed"]: job["status"] for job in jobs} == {1: "finished", 7: "failed"}


# --- what stays loaded

def test_what_is_loaded_is_kept_only_in_a_sweep() -> None:
    loads = []
    kept.keep(False)
    for _ in range(2):
        kept.kept("a", lambda: loads.append("a"))
    assert len(loads) == 2
    kept.keep()
    try:
        for name in ("a", "b", "a", "b"):
            kept.kept(name, lambda name=name: loads.append(name) or name)
        assert loads[2:] == ["a", "b"]
        for number in range(kept.MOST - 1):
            kept.kept(number, object)
        assert kept.kept("b", lambda: "again") == "b" and kept.kept("a", lambda: "again") == "again"
    finally:
        kept.keep(False)


def test_a_stamp_changes_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "weights").write_text("1")
    first = kept.stamp(tmp_path / "part")
    assert kept.stamp(tmp_path / "part") == first != kept.stamp(tmp_path / "part" / "weights")
    (tmp_path / "part" / "weights").write_text("12")
    assert kept.stamp(tmp_path / "part") != first
    assert kept.stamp("griffin_lim") == "griffin_lim"
