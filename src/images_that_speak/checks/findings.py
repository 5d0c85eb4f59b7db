"""What a check gathers: lines to read, and everything that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hydra.errors import HydraException
from omegaconf import DictConfig

from ..config import first_line
from ..errors import UserError
from ..files import shortest
from ..runs import open_run


@dataclass
class Findings:
    """`lines`: what would happen. `problems`: what stands in the way, each beginning with its key."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def tell(self, name: str, *texts: str) -> None:
        """A line with its name in the margin; further texts stand below the first."""
        for i, text in enumerate(texts):
            self.lines.append(f"{name if i == 0 else '':<12} {text}".rstrip())

    @contextmanager
    def step(self, key: str) -> Iterator[None]:
        """Whatever goes wrong within is a problem; `key` names it where the error itself does not."""
        try:
            yield
        except UserError as error:
            self.problems += str(error).splitlines()
        # What the libraries raise when they are given values they were not made for.
        except (HydraException, ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            self.problems.append(f"{key}: {first_line(error)}")


def run_folder(cfg: DictConfig, task: str) -> str:
    """Where the run would write, and what is there already."""
    run = open_run(cfg, task)
    state = ("finished already" if (run.dir / "result.json").exists() and not cfg.fresh else
             "begun already; it would go on" if (run.dir / "run.json").exists() else "new")
    return f"{shortest(run.dir)} ({state})"


def counted(number: int, thing: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number:,} {thing}" + "s" * (number != 1)


def table(rows: list[tuple[str, int, int]]) -> list[str]:
    """Lines of a name, its parameters and its bytes, with a sum."""
    if len(rows) > 1:
        rows = [*rows, ("together", sum(row[1] for row in rows), sum(row[2] for row in rows))]
    width = max((len(name) for name, _, _ in rows), default=0)
    return [f"{name:<{width}}  {count:>13,} parameters  {size / 2**20:8.2f} MiB"
            for name, count, size in rows]
