"""Faults made on purpose, and what was lost by them: one line for each kind.

    python benchmarks/faults.py [training] [sweep] [evaluation] [disk] [checkpoint] [second] [wandb]
                                [kills=20] [imports=true] [seed=0] [folder=DIR]

All kinds unless some are named. `training`, `sweep` and `evaluation` are killed with SIGKILL: `kills` times
at a moment drawn over the command's usual duration, so that imports, loading, working and writing are hit,
and as often right before a file is opened for writing, renamed, made or removed. The same command is issued
until it ends by itself; what it leaves is compared, byte for byte, with what a command never killed left.

Needs flite (a corpus of twelve phrases is built). `disk` mounts a small tmpfs and is left out where that is
not allowed. Networks are tiny or take two steps. `imports=false` starts no fresh process for a command but
forks one that has imported torch already: nothing is killed while it imports, and all is quicker.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# What differs from command to command, or from run to run: clocks, and how the work was divided.
CLOCKS = ("seconds", "made")
RECORDS = ("run.json", "README.md", "config.yaml", ".lock", "sweep.json", "jobs.csv")
LIMIT = 600  # seconds a command may take
TINY = ["experiment=pocket/speech", "data.train.voices=[slt]", "data.batch_size=2", "steps=24",
        "adapter.channels=16", "adapter.hidden=16", "adapter.layers=1", "model.unet.channels=[16,16,16]",
        "model.crop_columns=16", "trainer.checkpoint_every=4", "trainer.validate_every=8",
        "trainer.log_every=1", "export=null", "device=cpu"]
SWEEP = ["generate.py", "-m", "guidance.audio_weight=0.8,1", "guidance.image_scale=2,3", "steps=2",
         "num_samples=2", "device=cpu"]


# --- commands, killed and not


class Command:
    """A command at work, in a process of its own or in a fork of this one.

    die_at: with a fork, it kills itself right before its so many-th change below the folder `watch`; 0 has it
    write their number into `watch`.changes.
    """

    def __init__(self, arguments: Sequence[str], log: Path, fork: bool = False, watch: Path | None = None,
                 die_at: int = 0, **environment: str):
        self.arguments, self.log = arguments, log
        if not fork:
            with open(log, "wb") as file:
                self.pid = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=file, stderr=file,
                                            start_new_session=True, env={**os.environ, **environment}).pid
        elif (pid := os.fork()):
            self.pid = pid
        else:
            code = 70
            try:
                file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for number in (1, 2):
                    os.dup2(file, number)
                os.setsid()
                os.chdir(ROOT)
                os.environ.update(environment)
                code = run_here(arguments, watch, die_at)
            finally:
                sys.stdout.flush()
                os._exit(code)

    def wait(self, seconds: float = LIMIT) -> int | None:
        """Its exit code, negative for a signal; None when it was still at work and had to be killed."""
        until, killed = time.monotonic() + seconds, False
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return None if killed else os.waitstatus_to_exitcode(status)
            if time.monotonic() > until and not killed:
                os.killpg(self.pid, signal.SIGKILL)
                killed = True
            time.sleep(0.01)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def run_here(arguments: Sequence[str], watch: Path | None, die_at: int) -> int:
    """Run a script in this process and return its exit code."""
    count = 0

    def look(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate") or (
            event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR))
        paths = (str(value) for value in values if isinstance(value, (str, Path)))
        if writes and any(path.startswith(str(watch)) for path in paths):
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if watch is not None:
        sys.addaudithook(look)
    sys.argv = list(arguments)
    sys.path[0] = str(ROOT)
    try:
        runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    if watch is not None and not die_at:
        Path(f"{watch}.changes").write_text(str(count), encoding="utf-8")
    return code


# --- what is compared


def left(folder: Path) -> dict[str, str]:
    """{file: hash of what it says} of everything below a folder of runs, clocks and records left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in RECORDS or path.suffix == ".diff" or path.parent.is_symlink():
            continue
        data = path.read_bytes()
        if path.suffix == ".ckpt":  # carries clocks; the weights and the metrics are what came of it
            data = b""
        elif path.name == "result.json" or path.name == "metrics.jsonl" and b"seconds_per_sample" in data:
            data = repr([{k: v for k, v in json.loads(line).items() if not k.startswith(CLOCKS)} for line in
                         ([data] if path.name == "result.json" else data.splitlines())]).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def lost(whole: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs, a line a file; checkpoints beside last.ckpt depend on where a training was stopped."""
    def bound(name: str) -> bool:
        return name.endswith("previous.ckpt")

    return [f"{name}: " + ("missing" if name not in now else "left over" if name not in whole else "differs")
            for name in sorted({*whole, *now}) if whole.get(name) != now.get(name) and not bound(name)]


class Trials:
    """The folder that faults are made in, and the kinds of fault: a method each."""

    def __init__(self, folder: Path, kills: int, seed: int, imports: bool):
        self.folder, self.kills, self.random, self.imports = folder, kills, random.Random(seed), imports
        self.log = folder / "output.txt"
        self.logs = folder / "logs"

    def call(self, arguments: Sequence[str], **environment: str) -> tuple[int | None, str, float]:
        """Exit code, what was printed, and seconds of a command."""
        began = time.perf_counter()
        command = Command(arguments, self.log, fork=not self.imports and arguments[0] != "-m", **environment)
        return command.wait(), command.text(), time.perf_counter() - began

    def must(self, arguments: Sequence[str], **environment: str) -> float:
        """Seconds of a command that is to succeed."""
        code, text, seconds = self.call(arguments, **environment)
        if code != 0:
            sys.exit(f"{' '.join(arguments)}\nended with {code}\n{text}")
        return seconds

    def clean(self, *more: Path) -> None:
        for path in (self.logs, *more):
            shutil.rmtree(path, ignore_errors=True)

    def storm(self, name: str, command: Sequence[str], reset: Callable[[], None], place: Path) -> None:
        """Kill `command` again and again, and tell what was lost below `place`."""
        reset()
        usual = self.must(command)
        whole = left(place)
        reset()
        Command(command, self.log, fork=True, watch=place).wait()
        changes = int(Path(f"{place}.changes").read_text(encoding="utf-8"))
        problems, ended, killed = lost(whole, left(place)), 1, {"time": 0, "write": 0}
        while sum(killed.values()) < 2 * self.kills:
            reset()
            code: int | None = None
            while code is None:
                ways = [way for way, count in killed.items() if count < self.kills]
                way = self.random.choice(ways) if ways else "none"
                if way == "write":
                    code = Command(command, self.log, fork=True, watch=place,
                                   die_at=self.random.randint(1, changes)).wait()
                    code = None if code == -signal.SIGKILL else code
                else:
                    seconds = self.random.uniform(0, usual) if way == "time" else LIMIT
                    code = Command(command, self.log, fork=not self.imports).wait(seconds)
                if way != "none":
                    killed[way] += code is None
                print(f"  {name}: {killed}, {ended} finished", end="\r", file=sys.stderr, flush=True)
            ended += 1
            if code:
                problems.append(f"ended with {code}: {self.log.read_text('utf-8', 'replace')[-800:]}")
            problems += lost(whole, left(place))
        self.tell(name, f"killed {killed['time']} times over its usual {usual:.0f} s and {killed['write']} "
                  f"times at one of its {changes} writes; finished {ended} times", problems)

    def tell(self, name: str, what: str, problems: Sequence[str]) -> None:
        print(f"{name}: {what}; lost: {'nothing' if not problems else len(problems)}", flush=True)
        for problem in problems[:20]:
            print(f"    {problem}", flush=True)

    # --- kinds

    @property
    def training_command(self) -> list[str]:
        data = self.folder / "data"
        if not (data / "pocket_speech" / "manifest.parquet").exists():
            self.must(["-m", "images_that_speak.data", f"data.root={data}/pocket_speech", "data.voices=[slt]",
                  "data.prompts=12"])
        return ["train.py", *TINY, f"paths.data={data}", f"paths.logs={self.logs}"]

    @property
    def latents(self) -> Path:
        return self.folder / "data" / "latents"

    def training(self) -> None:
        self.storm("training", self.training_command, lambda: self.clean(self.latents), self.logs)

    def sweep(self) -> None:
        self.storm("sweep", [*SWEEP, f"paths.logs={self.logs}"], self.clean, self.logs)

    def evaluation(self) -> None:
        self.clean()
        prompts = self.folder / "pairs.csv"
        prompts.write_text("image_prompt,audio_prompt\na cat,happy baby music\ntwo frogs,green water\n",
                           encoding="utf-8")
        self.must(["generate.py", f"prompts={prompts}", "num_samples=2", "steps=4", "reader=none",
                   "device=cpu", f"paths.logs={self.logs}"])
        run, = (self.logs / "generate").iterdir()
        made = self.folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(run, made)

        def reset() -> None:
            shutil.rmtree(self.logs / "evaluate", ignore_errors=True)
            shutil.rmtree(run)
            shutil.copytree(made, run)  # with its times: they are part of what an evaluation is named by

        command = ["evaluate.py", f"run={run}", "device=cpu", f"paths.logs={self.logs}"]
        self.storm("evaluation", command, reset, self.logs)

    def disk(self) -> None:
        """On a disk that is full after the first checkpoint, or the first sample; then space is made."""
        for name, command, free in (("training", self.training_command, 7.5), ("sweep", SWEEP, 2.5)):
            self.clean(self.latents)
            command = [*(word for word in command if not word.startswith("paths.logs")),
                       f"paths.logs={self.logs}"]
            self.must(command)
            whole = left(self.logs)
            self.clean()
            self.logs.mkdir()
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.logs)],
                              capture_output=True).returncode:
                return self.tell("disk", "left out: no right to mount a tmpfs", [])
            try:
                filler = self.logs / "filler"
                filler.write_bytes(bytes(int((64 - free) * 2**20)))
                code, text, _ = self.call(command)
                errors = [line.strip() for line in text.splitlines() if "space" in line]
                problems = [] if code and errors else [f"ended with {code}: {text[-800:]}"]
                if "Traceback" in text:
                    problems.append(f"a traceback: {text[-800:]}")
                before = {path: path.stat().st_mtime_ns for path in self.logs.rglob("*")
                          if path.name == "last.ckpt" or path.name == "image.png"
                          and (path.parent / "sample.json").exists()}  # a sample that is whole
                filler.unlink()
                code, text, _ = self.call(command)
                problems += [f"ended with {code} when there was space: {text[-800:]}"] if code else []
                after = left(self.logs)
                problems += lost(whole, after)
                again = [str(path) for path, time in before.items() if path.name == "image.png"
                         and path.stat().st_mtime_ns != time]
                problems += [f"{path}: made again" for path in again]
                self.tell(f"disk full ({name})", f"\"{errors[0] if errors else ''}\"; with space again it "
                          f"went on from the {len(before)} checkpoints or pictures there", problems)
            finally:
                subprocess.run(["umount", str(self.logs)], check=True)

    def checkpoint(self) -> None:
        """The last checkpoint of an unfinished training damaged in three ways; then both."""
        command = self.training_command
        self.clean(self.latents)
        self.must(command)
        whole = left(self.logs)
        run, = (self.logs / "train").iterdir()
        for name in ("result.json", "README.md"):
            (run / name).unlink()
        shutil.rmtree(run / "weights")
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(run, unfinished)
        good = (run / "checkpoints" / "last.ckpt").read_bytes()
        flipped = bytearray(good)
        for at in self.random.sample(range(len(good)), 20):
            flipped[at] ^= 0xFF
        problems, told = [], ""
        faults = {"cut off": good[:len(good) // 2], "20 bytes flipped": bytes(flipped), "empty": b""}
        for name, data in faults.items():
            shutil.rmtree(run)
            shutil.copytree(unfinished, run)
            (run / "checkpoints" / "last.ckpt").write_bytes(data)
            code, text, _ = self.call(command)
            told = next((line for line in text.splitlines() if "the one before it" in line), "")
            if code or not told:
                problems.append(f"{name}: ended with {code}: {text[-800:]}")
            problems += [f"{name}: {line}" for line in lost(whole, left(self.logs))
                         if "broken.ckpt" not in line]
        self.tell("last checkpoint cut off, flipped, empty", f"\"…{told[-60:]}\"", problems)
        shutil.rmtree(run)
        shutil.copytree(unfinished, run)
        for path in (run / "checkpoints").iterdir():
            path.write_bytes(b"")
        code, text, _ = self.call(command)
        refused = code == 2 and "no checkpoint is whole" in text
        self.tell("both checkpoints empty", "refused" if refused else f"ended with {code}",
                  [] if refused else [text[-800:]])

    def second(self) -> None:
        """The same command once more while it runs."""
        for name, command in (("training", self.training_command),
                              ("generation", ["generate.py", "steps=2", "num_samples=2", "device=cpu",
                                              f"paths.logs={self.logs}"])):
            self.clean(self.latents)
            self.must(command)
            whole = left(self.logs)
            self.clean(self.latents)
            first = Command(command, self.folder / "first.txt", fork=not self.imports)
            while not list(self.logs.glob("*/*/run.json")):
                time.sleep(0.02)
            os.kill(first.pid, signal.SIGSTOP)  # so that it is at work for as long as the second looks
            code, text, _ = self.call(command)
            os.kill(first.pid, signal.SIGCONT)
            problems = [] if code == 2 and "at work on this very run" in text else [f"{code}: {text[-500:]}"]
            problems += [f"the first ended with {code}"] if (code := first.wait()) else []
            message = text.strip().splitlines()[-1].split(": ", 2)[-1]
            self.tell(f"second {name}", f"refused (\"{message[:70]}…\"), and the first finished",
                      problems + lost(whole, left(self.logs)))

    def wandb(self) -> None:
        """A server that refuses, and one that takes the call and never answers."""
        command = ["generate.py", "steps=2", "reader=none", "device=cpu", f"paths.logs={self.logs}"]
        self.clean()
        usual = self.must(command)
        for name, server in (("refuses", closed_port), ("never answers", silent_port)):
            with server() as port:
                self.clean()
                seconds = self.must([*command, "logger=wandb"], WANDB_MODE="online",
                                    WANDB_API_KEY="0" * 40, WANDB_BASE_URL=f"http://127.0.0.1:{port}")
            kept = list(self.logs.glob("generate/*/wandb/offline-run-*/*.wandb"))
            result = list(self.logs.glob("generate/*/result.json"))
            whole = len(kept) == len(result) == 1
            self.tell(f"W&B server that {name}", f"finished in {seconds:.0f} s, without W&B {usual:.0f} s; "
                      f"{len(kept)} offline run kept", [] if whole else
                      [self.log.read_text(encoding="utf-8")[-800:]])


@contextmanager
def closed_port() -> Any:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def silent_port() -> Any:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(64)  # the system accepts, nobody reads
        yield taken.getsockname()[1]


# What a fork is to have imported.
HEAVY = ("images_that_speak.generate", "images_that_speak.training.train",
         "images_that_speak.training.diffusion", "pocketsphinx", "open_clip")
KINDS = ("training", "sweep", "evaluation", "disk", "checkpoint", "second", "wandb")


def main() -> None:
    options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    kinds = [word for word in sys.argv[1:] if "=" not in word] or list(KINDS)
    if unknown := [*({*kinds} - {*KINDS}), *({*options} - {"kills", "imports", "seed", "folder"})]:
        sys.exit(f"{', '.join(unknown)}: expected some of {', '.join(KINDS)}, "
                 "kills=, imports=, seed=, folder=")
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads of its parent's
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        place = Path(options.get("folder", folder)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        trials = Trials(place, int(options.get("kills", 20)), int(options.get("seed", 0)),
                        options.get("imports", "true") == "true")
        for kind in kinds:
            getattr(trials, kind)()


if __name__ == "__main__":
    main()
