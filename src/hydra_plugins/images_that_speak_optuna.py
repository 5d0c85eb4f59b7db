"""A sweep whose values Optuna chooses: `hydra/sweeper=optuna`, set in configs/hydra/sweeper/optuna.yaml.

Our own and not the plugin hydra-optuna-sweeper, whose stable version wants Optuna 2, whose search begins anew
when it is issued again, and which ends at the first job that fails. Here the study is stored after every job;
issued again it goes on with jobs that were cut off or failed, and makes what is missing of `trials`.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig

SAMPLERS = ("tpe", "nsga2", "random")
LACKING = 3  # runs without the figure that is searched by, after which a search ends


class OptunaSweeper(Sweeper):
    """Ask for values, launch a job with each, tell what came of it.

    Args:
        sampler: "tpe", "nsga2" or "random".
        trials: finished ones in all, those of earlier commands among them.
        parallel: how many are asked for at once.
        population: of a generation of nsga2.
        seed: of the sampler, or None.
        storage: a database URL, or None for `optuna.db` in the sweep's folder.
        params: {key: values} to search besides those of the command line.
    """

    def __init__(self, sampler: str = "tpe", trials: int = 40, parallel: int = 1, population: int = 20,
                 seed: int | None = None, storage: str | None = None, params: Any = None):
        from images_that_speak.errors import UserError, nearest

        if sampler not in SAMPLERS:
            raise UserError(f"hydra.sweeper.sampler={sampler}: expected one of {', '.join(SAMPLERS)}."
                            f"{nearest(sampler, SAMPLERS)}")
        for key, value, least in (("trials", trials, 1), ("parallel", parallel, 1),
                                  ("population", population, 2)):
            if value < least:
                raise UserError(f"hydra.sweeper.{key}={value}: expected at least {least}")
        self.sampler, self.trials, self.parallel = sampler, trials, parallel
        self.population, self.seed, self.storage = population, seed, storage
        self.params = dict(params or {})

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        from images_that_speak.errors import UserError
        from images_that_speak.files import write_json
        from images_that_speak.objectives import declared
        from images_that_speak.packages import need

        need("optuna", where="hydra/sweeper=optuna")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parsed = OverridesParser.create().parse_overrides(words)
        searched = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
        fixed = [o.input_line or "" for o in parsed if not o.is_sweep_override()]
        if not searched:
            raise UserError("hydra/sweeper=optuna: nothing to search; give some key several values or an "
                            "interval, such as 'guidance.audio_weight=interval(0.3,1)'")
        assert self.config is not None
        names = list(self.config.optimized_metrics)
        kinds = declared(self.config, self.config.hydra.job.config_name)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=study_name(folder.name, names, searched), load_if_exists=True,
            storage=self.storage or f"sqlite:///{folder.resolve() / 'optuna.db'}",
            sampler=self._sampler(optuna), directions=[kinds[name] for name in names])  # type: ignore[misc]
        queue_again(study)
        self._search(study, searched, fixed, names)
        best = [{"values": dict(zip(names, trial.values, strict=True)), "params": trial.params}
                for trial in study.best_trials]
        write_json(folder / "best.json", {"metrics": {name: kinds[name] for name in names}, "best": best})
        print("best:" if len(names) == 1 else "best, none of them better than another in everything:")
        for entry in best:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in entry["values"].items())
            print(f"  {shown}: {' '.join(f'{key}={value}' for key, value in entry['params'].items())}")

    def _sampler(self, optuna: Any) -> Any:
        if self.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=self.population, seed=self.seed)
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=self.seed)
        return optuna.samplers.TPESampler(seed=self.seed, constant_liar=self.parallel > 1)

    def _search(self, study: Any, searched: dict[str, Any], fixed: Sequence[str],
                names: Sequence[str]) -> None:
        """Raise UserError when the first runs all lack a figure: nothing would be searched by."""
        from optuna.trial import TrialState

        from images_that_speak.errors import UserError

        lacking = 0
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        # Those that still run are another process's, which searches in the same storage.
        left = self.trials - sum(state in (TrialState.COMPLETE, TrialState.RUNNING) for state in states)
        number = 0
        while left > 0:
            trials = [study.ask(searched) for _ in range(min(self.parallel, left))]
            for trial in trials:
                trial.set_user_attr("process", [platform.node(), os.getpid()])
            batch = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
            for trial, job in zip(trials, self.launcher.launch(batch, initial_job_idx=number), strict=True):
                values = job.return_value if job.status == JobStatus.COMPLETED else None
                without = [name for name, value in zip(names, values or (), strict=False)
                           if math.isnan(value)]
                if without:
                    print(f"trial {trial.number}: its run gave no {' and no '.join(without)}, and counts "
                          "as failed")
                    lacking += 1
                if values is None or without:
                    study.tell(trial, state=TrialState.FAIL)
                else:
                    study.tell(trial, list(values))
            done = any(state == TrialState.COMPLETE for state in
                       (trial.state for trial in study.get_trials(deepcopy=False)))
            if lacking >= min(LACKING, self.trials) and not done:
                raise UserError(f"optimized_metrics=[{','.join(names)}]: no run has given "
                                f"{' and '.join(names)} so far; there is nothing to search by")
            left, number = left - len(trials), number + len(trials)


def distribution(override: Override) -> Any:
    """What Optuna draws from, for a sweep of the command line."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        kind: Any = IntDistribution if isinstance(value.start, int) else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and all(
            isinstance(n, int) for n in (value.start, value.stop, value.step)):
        steps = list(value.range())
        return IntDistribution(min(steps), max(steps), step=abs(int(value.step)))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def study_name(sweep: str, metrics: Sequence[str], searched: dict[str, Any]) -> str:
    """Other metrics, or other choices of a key, are another study: Optuna could not use what it was told.

    An interval may be widened.
    """
    from images_that_speak.files import content_hash

    kinds = {key: [type(d).__name__, getattr(d, "log", None), getattr(d, "choices", None)]
             for key, d in searched.items()}
    return f"{sweep} {' '.join(metrics)} {content_hash(kinds, 6)}"


def queue_again(study: Any) -> None:
    """Have the values of trials that failed, or whose process is gone, tried once more, before new ones."""
    from optuna.trial import TrialState

    trials = study.get_trials()
    waiting = [trial.system_attrs.get("fixed_params") for trial in trials
               if trial.state == TrialState.WAITING]
    done = [trial.params for trial in trials if trial.state == TrialState.COMPLETE]
    for trial in trials:
        if trial.state == TrialState.RUNNING and not _alive(*trial.user_attrs.get("process", ("", 0))):
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state != TrialState.FAIL:
            continue
        if trial.params not in done and trial.params not in waiting:
            study.enqueue_trial(trial.params)
            waiting.append(trial.params)


def _alive(node: str, process: int) -> bool:
    """Whether a process still runs; those of other machines cannot be seen and are taken to."""
    if not process:
        return False
    if node != platform.node():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
