"""A loader that goes on where it stopped, with however many workers it is now given."""

from __future__ import annotations

from typing import Any

from torchdata.stateful_dataloader import StatefulDataLoader

# What torchdata calls the parts of a state; a test goes on from each kind with the other.
SNAPSHOT, MAIN, SINCE, FINISHED = "_snapshot", "_main_snapshot", "_steps_since_snapshot", "_iterator_finished"
STEP, LAST_WORKER, OF_WORKERS = "_snapshot_step", "_last_yielded_worker_id", "_worker_snapshots"
WORKERS, SEED, YIELDED = "_num_workers", "_base_seed", "_num_yielded"
SAMPLER = ("_index_sampler_state", "_sampler_iter_state", "_sampler_iter_yielded",
           "_IterableDataset_len_called", "_shared_seed")


class Loader(StatefulDataLoader):
    """torchdata's loader for datasets whose items are a function of their keys.

    Where it stands is then where its sampler stands: neither datasets nor workers have a state of their own,
    so a state that was saved with one number of workers is gone on from with any other.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict and workers_of(state_dict) != self.num_workers:
            state_dict = with_workers(state_dict, self.num_workers)
        super().load_state_dict(state_dict)


def workers_of(state: dict[str, Any]) -> int:
    """The number of workers that a loader's state was saved with."""
    return int(state[SNAPSHOT][MAIN][WORKERS]) if SNAPSHOT in state else 0


def with_workers(state: dict[str, Any], workers: int) -> dict[str, Any]:
    """The state of a loader that has given the same batches by another number of workers."""
    main = state[SNAPSHOT][MAIN] if SNAPSHOT in state else state
    given = state[SNAPSHOT][STEP] if SNAPSHOT in state else state[YIELDED]
    sampler = {name: main[name] for name in SAMPLER}
    if workers == 0:
        return {**sampler, YIELDED: given, "fetcher_state": None, "dataset_state": None,
                FINISHED: state[FINISHED]}
    # The last worker gave the last batch, so that the first gives the next.
    snapshot = {STEP: given, LAST_WORKER: workers - 1, OF_WORKERS: {},
                MAIN: {**sampler, WORKERS: workers, SEED: main.get(SEED, 0)}}
    return {SNAPSHOT: snapshot, SINCE: 0, FINISHED: state[FINISHED]}
