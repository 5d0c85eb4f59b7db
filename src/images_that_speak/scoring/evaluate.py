"""Reading pictures back: what is seen in them, what is heard when they are played, and how sure that is.

`evaluate(cfg)` reads a run folder of generate.py or any folder of pictures; `read_back(folders, …)` is what
generate.py calls on its own samples at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config import instantiate
from ..diffusion.family import find_device
from ..errors import UserError
from ..figures import as_json
from ..files import read_json
from ..kept import kept, stamp
from ..runs import as_made, open_run
from ..runs.identity import family_fingerprint
from .items import Item, find_pictures, find_run, item_of, named_apart
from .judges import Readers, load_readers, with_second_opinion
from .metric import Metric
from .reading import Report, read_items, unscored
from .statistics import Interval, totals
from .tables import (
    METRIC_COLUMNS,
    SAMPLE_COLUMNS,
    TOTAL_COLUMNS,
    print_table,
    shown_figure,
    total_row,
    write_table,
)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Read back what `cfg` (configs/evaluate.yaml) names, print the tables, and return the result.

    The pictures of a run are played by its own vocoder, unless `cfg` has another (see `runs.as_made`); so
    are those of each run that `cfg.pictures` holds.
    Writes samples.csv, samples.md, totals.csv, totals.md and result.json into a run folder of its own (with
    metrics also metrics.csv and metrics.md), and the scores into the sample.json of samples that have one.
    Files that cannot be read are named and left out. Raises UserError when none can be read.
    """
    cfg = as_made(cfg)
    items = find_run(cfg.run) if cfg.run else find_pictures(cfg.pictures, cfg.prompts)
    with open_run(cfg, "evaluate") as run:
        if run.result is not None:
            return run.result
        metrics = load_metrics(cfg)
        readers = with_second_opinion(load_readers(cfg.reader, cfg.device), items, cfg.device)
        configs = made_by(cfg, items)
        if readers.source == "picture":
            items = with_vocoders(items, configs)
        report = read_items(items, readers, metrics=metrics, name_seen=cfg.pictures is not None)
        figures = totals(report.rows, int(cfg.bootstrap), int(cfg.seed), report.own)
        # Before the tables: logger=csv has a samples.csv too, of which the evaluation's own takes the place.
        run.log_samples(item.sample.folder for item in items if item.sample is not None)
        lines = [total_row(Path(cfg.run or cfg.pictures).name, figures)]
        lines += stored_rows(list(configs.values()), readers.speech.name)
        columns = readers.named(SAMPLE_COLUMNS), readers.named(TOTAL_COLUMNS)
        told = metric_rows(metrics, report, figures)
        write_table(run.dir / "samples", report.rows, {**columns[0], **{key: key for key in report.own}})
        write_table(run.dir / "totals", lines, columns[1])
        report.tell()
        print_table(report.rows, columns[0])
        print_table(lines, columns[1])
        if metrics:
            write_table(run.dir / "metrics", told, METRIC_COLUMNS)
            # What they stand on would not fit the terminal; it is in the files.
            print_table(told, dict(list(METRIC_COLUMNS.items())[:4]))
        print(f"tables and result: {run.dir}")
        return run.finish({**plain_totals(figures, report, metrics), **({"metrics": told} if metrics else {}),
                           **readers.names,
                           "normaliser": readers.speech.normaliser, "source": readers.source,
                           "left_out": [{"file": file, "error": error}
                                        for file, error in report.left_out.items()]})


def read_back(folders: Sequence[str | Path], reader: Any, device: str = "cpu", resamplings: int = 1000,
              seed: int = 0, quiet: bool = False,
              metrics: Mapping[str, Metric] | None = None) -> dict[str, Any]:
    """Read sample folders back, write the scores into each sample.json, and return the totals.

    Args:
        folders: sample folders, each with image.png, sample.json and speech.wav, which generate.py decodes
            from the 8-bit picture and which is heard.
        reader: the configuration section `reader`, or `Readers`. When the picture reader cannot be loaded, a
            note says so and nothing is said of what is seen.
        metrics: by name, loaded; what each measures beside.

    Returns `plain_totals`. Raises UserError when no folder can be read.
    """
    items = named_apart([item_of(Path(folder)) for folder in folders])
    notes = []
    if isinstance(reader, Readers):
        readers = reader
    else:
        try:
            readers = load_readers(reader, device)
        except UserError as error:
            readers = load_readers(reader, device, see=False)
            notes.append(f"what is seen is not scored: {error}")
        readers = with_second_opinion(readers, items, device)
    report = read_items(items, replace(readers, source="wav"), metrics=metrics)
    report.notes += notes
    if not quiet:
        report.tell()
    return plain_totals(totals(report.rows, resamplings, seed, report.own), report, metrics)


def load_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """The metrics of the section `metrics` by name, loaded. Raises UserError when one cannot be had."""
    metrics = build_metrics(cfg)
    for metric in metrics.values():
        metric.load()
    return metrics


def build_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """The metrics of the section `metrics`, their weights not yet loaded."""
    section: Any = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(section, dict)
    return {name: instantiate(_on_device(part, cfg.device))
            for name, part in (section["metrics"] or {}).items()}


def _on_device(node: Any, device: str) -> Any:
    """A section with every `device` in it filled with the one that is used."""
    if not isinstance(node, dict):
        return node
    return {key: str(find_device(device)) if key == "device" else _on_device(value, device)
            for key, value in node.items()}


def made_by(cfg: DictConfig, items: Sequence[Item]) -> dict[Path | None, DictConfig]:
    """{run: `cfg` as that run was made} for every run that `items` are samples of; None: of those of none."""
    runs = dict.fromkeys(item.run for item in items)
    return {run: cfg if run is None else as_made(cfg, run) for run in runs}


def with_vocoders(items: Sequence[Item], configs: Mapping[Path | None, DictConfig]) -> list[Item]:
    """`items`, each with the vocoder of its own run: `vocoder.path`, or the family's. Each is loaded once."""
    from ..audio.vocoder import load_vocoder

    paths = {run: vocoder_of(cfg) for run, cfg in configs.items()}
    device = find_device(next(iter(configs.values())).device)

    def load(path: str) -> Any:
        return kept(("vocoder", stamp(path), str(device)), lambda: load_vocoder(path).to(device))

    loaded = {path: load(path) for path in dict.fromkeys(paths.values())}
    return [replace(item, vocoder=loaded[paths[item.run]]) for item in items]


def vocoder_of(cfg: DictConfig) -> str:
    """The vocoder that plays pictures: `vocoder.path`, or the family's."""
    return str(OmegaConf.select(cfg, "vocoder.path") or instantiate(cfg.family).vocoder)


def metric_rows(metrics: Mapping[str, Metric], report: Report,
                figures: Mapping[str, Interval | int]) -> list[dict[str, Any]]:
    """One row a figure: its value, of how many samples, against what, with which weights and protocol."""
    rows = []
    for name, metric in metrics.items():
        keys: dict[str, Any] = {key: figures.get(key) for key in report.measured.get(name, ())}
        of_all = report.sets.get(name, {})
        for key, value in {**keys, **of_all}.items():
            count = len(report.rows) if key in of_all else sum(
                row.get(key) is not None for row in report.rows)
            rows.append({"metric": key, "value": shown_figure(value), "samples": count,
                         "reference": metric.reference, "references": metric.counted(),
                         "weights": metric.weights, "protocol": metric.protocol})
    return rows


def plain_totals(figures: Mapping[str, Interval | int], report: Report | None = None,
                 metrics: Mapping[str, Metric] | None = None) -> dict[str, Any]:
    """Totals as numbers: `wer` and so on, and `wer_interval` [low, high] where there is one.

    Of a report also what is said of all samples, and how figures of metrics of one's own are called, for the
    tables and pages to come.
    """
    found: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Interval):
            found[name] = value.value
            if value.low is not None:
                found[f"{name}_interval"] = [value.low, value.high]
        else:
            found[name] = value
    if report is not None:
        found |= unscored(report.rows)
        for of_all in report.sets.values():
            found |= of_all
    return found | as_json(figure for metric in (metrics or {}).values() for figure in metric.figures)


def stored_rows(configs: Sequence[DictConfig], speech_reader: str) -> list[dict[str, str]]:
    """The rows of the largest set of anchors below `paths.logs` made with the family of these and read by the
    reader of speech of that name.

    Empty where there are none yet, or the families are several: anchors of one say nothing about another.
    """
    sections: Any = [OmegaConf.to_container(cfg.family, resolve=True) for cfg in configs]
    families = {family_fingerprint(section) for section in sections}
    if len(families) > 1:
        return []
    mine, cfg = families.pop(), configs[0]
    best: list[dict[str, str]] = []
    for path in sorted((Path(cfg.paths.logs) / "anchors").glob(f"{mine}-*/anchors.json")):
        stored = read_json(path)
        rows = stored["rows"]
        # One reader's figures say nothing about another's.
        if stored["speech_reader"] == speech_reader and rows and (
                not best or int(rows[0]["samples"]) > int(best[0]["samples"])):
            best = rows
    return best
