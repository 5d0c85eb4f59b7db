"""Every combination of the values given: `hydra/sweeper=grid`, the default."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """Hydra's own, without composing every job once more beforehand.

    `config.check` has tried each value already, and composing is most of what a job costs beside its work.
    """

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        pass
