"""What generate.py does: makes samples, has them read back, and shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from .config import instantiate
from .diffusion.layout import Layout
from .diffusion.planning import make_missing, notes, read_settings
from .files import shortest
from .listening.plan import listens, planned_jobs
from .runs import Run, open_run
from .runs.profile import profiled
from .runs.sample import Sample
from .scoring.evaluate import load_metrics, read_back
from .scoring.tables import print_table
from .speaking.from_sound import draw_missing, draws_sounds, plan_sounds
from .speaking.make import Maker, in_same_cells, refuse_files
from .speaking.make import make_missing as make_speaking

SCORES = ("heard", "wer", "second_heard", "second_wer", "clip", "no_clip")


def generate(cfg: DictConfig) -> dict[str, Any]:
    """Make the samples that `cfg` (configs/generate.yaml) asks for, read them back, and return the result.

    Samples that the run folder already holds are not made again. Raises UserError on bad input, before any
    network is loaded.
    """
    layout = instantiate(cfg.family)
    make, jobs, evaluations = planned(cfg, layout)
    with open_run(cfg, "generate") as run:
        if run.result is not None:
            return run.result
        # What they need is missed now, or not at all.
        metrics = load_metrics(cfg)
        with profiled(run.dir, cfg.profile):
            made, seconds = make(run)
        folders = [run.sample_dir(job.sample_id) for job in jobs]
        result: dict[str, Any] = {"samples": len(jobs), "made": made, "seconds": round(seconds, 2),
                                  "evaluations": evaluations}
        # What is drawn of sounds and speech says nothing; a caption of it may be told by a table.
        silent = draws_sounds(cfg) or (listens(cfg) and cfg.prompts is None)
        if cfg.reader is not None and not silent:
            result |= read_back(folders, cfg.reader, device=cfg.device, metrics=metrics)
        show(folders)
        print(f"run folder: {shortest(run.dir)}")
        return run.finish(result)


def planned(cfg: DictConfig, layout: Layout
            ) -> tuple[Callable[[Run], tuple[int, float]], Sequence[Any], int]:
    """What makes the missing samples of a run, the samples, and the UNet passes that each takes.

    Raises UserError on all that is wrong with `cfg`, before any network is loaded.
    """
    if draws_sounds(cfg):
        method, sounds = plan_sounds(cfg)
        return partial(draw_missing, cfg=cfg, method=method, jobs=sounds), sounds, 0
    if in_same_cells(cfg):
        maker = Maker.plan(cfg, layout)
        for note in maker.notes():
            print(note)
        maker.prepare()
        return partial(make_speaking, maker=maker), maker.jobs, maker.evaluations
    if not listens(cfg):
        refuse_files(cfg)
    settings = read_settings(cfg, layout)
    jobs = planned_jobs(cfg, layout)
    for note in notes(jobs, layout):
        print(note)
    make = partial(make_missing, cfg=cfg, layout=layout, settings=settings, jobs=jobs)
    return make, jobs, settings.evaluations


def show(folders: Sequence[Path]) -> None:
    """Print what each sample shows, says and was heard to say, and where it lies."""
    rows = []
    for folder in folders:
        found = Sample.read(folder).record
        scores = found["scores"]
        rows.append({**found, **{key: scores.get(key) for key in SCORES},
                     # Whole paths of many samples would be cut to the terminal; the run folder is told below.
                     "path": f"{folder.parent.name}/{folder.name}"})
    columns = {"image_prompt": "image prompt", "audio_prompt": "audio prompt", "heard": "heard", "wer": "WER",
               "second_heard": "heard by a second judge", "second_wer": "WER", "clip": "CLIP",
               "path": "sample"}
    alone = all(row["second_wer"] is None for row in rows)
    print_table(rows, {key: title for key, title in columns.items() if not (alone and "second" in key)})
