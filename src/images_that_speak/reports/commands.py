"""`python -m images_that_speak.reports`: pages and pictures to look at, from run folders."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m images_that_speak.reports",
        description="Pages to look at, from run folders: one HTML file each, which opens without a server; "
                    "videos; and studies with people.",
        epilog="A folder is a run folder, or one that holds run folders: a sweep, or logs/generate.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    gallery = commands.add_parser("gallery", help="every sample: seen, heard, sorted, filtered")
    gallery.add_argument("runs", nargs="+", type=Path, metavar="RUN_OR_SWEEP")
    _common(gallery)
    pareto = commands.add_parser("pareto", help="WER against CLIP over a sweep, and the front")
    pareto.add_argument("runs", nargs="+", type=Path, metavar="SWEEP")
    _common(pareto)
    pareto.add_argument("--reference", nargs=2, type=float, default=(1.0, 0.0), metavar=("WER", "CLIP"),
                        help="the worst that counts for the hypervolume; by default 1 and 0")
    compare = commands.add_parser("compare", help="what differs between runs: settings, figures, samples")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN",
                         help="two to eight; the first is what the others are measured against")
    _common(compare)
    sheet = commands.add_parser("sheet", help="some samples as one png: seen, asked and heard")
    sheet.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    sheet.add_argument("-o", "--output", type=Path, metavar="FILE", help="by default sheet.png in the folder")
    sheet.add_argument("--count", type=int, default=12,
                       help="samples, none chosen by its score (%(default)s)")
    sheet.add_argument("--columns", type=int, default=2, help="side by side (%(default)s)")
    video = commands.add_parser(
        "video", help="of every sample an mp4: a bar sweeps the picture with the sound",
        description="Writes video.mp4 beside the picture of every sample. One that is there already, with "
                    "the same words and scores, is not made again.")
    video.add_argument("runs", nargs="+", type=Path, metavar="RUN_OR_SWEEP")
    study = commands.add_parser(
        "study", help="a blinded page for people to compare runs, two at a time",
        description="Writes a page that shows the same sample of two runs side by side and asks about them, "
                    "and beside it a key, which the raters do not get.")
    study.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="two or more, compared two by two")
    study.add_argument("-o", "--output", type=Path, metavar="FILE", default=Path("study.html"),
                       help="the page; by default study.html here")
    study.add_argument("--questions", nargs="+", metavar="WHICH", default=["shows", "says", "better"],
                       help="shows (pictures alone), says (sounds alone), better (both); by default all")
    study.add_argument("--most", type=int, metavar="N",
                       help="samples of each two runs that are asked about")
    study.add_argument("--seed", type=int, default=0, help="of the order, the sides and the choice")
    study.add_argument("--title", default="Which of the two?", help="over the page; name no run")
    answers = commands.add_parser(
        "answers", help="what the answers to a study come to",
        description="Prints how often each run was chosen, with 95 % intervals; writes it beside the key.")
    answers.add_argument("key", type=Path, metavar="KEY", help="the study's .key.json")
    answers.add_argument("answers", nargs="+", type=Path, metavar="ANSWERS", help="files that raters saved")
    player = commands.add_parser(
        "player", help="a page that plays any picture, without a server",
        description="Writes one HTML file: drop a picture on it and hear it. It needs neither a server nor a "
                    "network, and works from a file.")
    player.add_argument("-o", "--output", type=Path, metavar="FILE", default=Path("play.html"),
                        help="the page; by default play.html here")
    player.add_argument("--pictures", type=Path, metavar="DIR", help="pictures to put into it as examples")
    return top


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", type=Path, metavar="FILE",
                         help="the page to write; by default in the folder given, or one that holds all")
    command.add_argument("--title", help="by default the folder's name")
    command.add_argument("--embed", action="store_true",
                         help="put pictures and sounds into the page, for a small number of samples to send "
                              "around; else they stay in the run folders beside it")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a page or videos; returns the exit code. Bad input is printed as one block, with exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = parser().parse_args(arguments)
    from ..errors import UserError
    from ..terminal import lenient

    lenient()
    try:
        write(asked, "python -m images_that_speak.reports " + shlex.join(arguments))
    except UserError as error:
        print("error: " + "\n       ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    return 0


def write(asked: argparse.Namespace, command: str) -> None:
    if asked.command == "player":
        from .player import write_player

        return write_player(asked.output, asked.pictures)
    from .folders import find_runs
    from .page import home

    if asked.command == "answers":
        from .study import print_study, read_study

        print_study(read_study(asked.key, asked.answers))
        return
    runs = find_runs(asked.runs)
    if asked.command == "video":
        from .video import write_videos

        write_videos(runs)
        return
    if asked.command == "study":
        from .study import write_study

        write_study(runs, asked.output, asked.questions, asked.most, asked.seed, asked.title)
        return
    place = home(asked.runs)
    if asked.command == "sheet":
        from .sheet import write_sheet

        return write_sheet(runs, asked.output or place / "sheet.png", asked.count, asked.columns)
    title = asked.title or place.name
    if asked.command == "gallery":
        from .gallery import write_gallery

        write_gallery(runs, asked.output or place / "gallery.html", title, asked.embed, command)
    elif asked.command == "pareto":
        from .pareto import write_pareto

        write_pareto(runs, asked.output or place / "pareto.html", title, tuple(asked.reference), asked.embed,
                     command)
    else:
        from .compare import check, default_name, write_compare

        check(runs)
        write_compare(runs, asked.output or home([run.path for run in runs]) / default_name(runs), title,
                      asked.embed, command)
