"""The saved W&B view that opens the comparisons people want.

    python tools/wandb_workspace.py --entity TEAM              # saves it, tells where
    python tools/wandb_workspace.py --entity TEAM --spec FILE  # writes it, asks nobody

WER against CLIP, both by guidance weight, loss curves over the training's steps, and the table of samples
with picture and sound side by side. Needs `wandb-workspaces` (the extra `workspace`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from images_that_speak.config import first_line
from images_that_speak.errors import UserError
from images_that_speak.files import write_json
from images_that_speak.packages import how
from images_that_speak.runs.wandb import logged_in
from images_that_speak.terminal import lenient

STEP = "trainer/global_step"
WEIGHT = "guidance.audio_weight"


def workspace(entity: str, project: str) -> Any:
    """The view, not saved yet. Raises UserError when wandb-workspaces is not installed."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UserError(f"wandb-workspaces is not installed ({how('workspace')})") from error

    def scatter(title: str, x: Any, y: str) -> Any:
        return wr.ScatterPlot(title=title, x=x, y=wr.SummaryMetric(y))

    def line(title: str, *metrics: str) -> Any:
        return wr.LinePlot(title=title, x=STEP, y=list(metrics))

    weight = wr.Config(WEIGHT)
    axes = [wr.ParallelCoordinatesPlotColumn(metric=metric) for metric in (
        weight, wr.Config("guidance.image_scale"), wr.Config("guidance.audio_scale"),
        wr.SummaryMetric("wer"), wr.SummaryMetric("clip"))]
    sections = [
        ws.Section("Heard and seen", is_open=True, panels=[
            scatter("WER against CLIP", wr.SummaryMetric("clip"), "wer"),
            scatter("WER by guidance weight", weight, "wer"),
            scatter("CLIP by guidance weight", weight, "clip"),
            wr.ParallelCoordinatesPlot(title="guidance, WER, CLIP", columns=axes)]),
        ws.Section("Samples: picture and sound side by side", is_open=True, panels=[
            wr.WeavePanelSummaryTable(table_name="samples")]),
        ws.Section("Losses", panels=[line("training", "train/loss"),
                                     line("validation", "valid/loss", "valid/l1", "valid/mel_error")],
                   panel_settings=ws.SectionPanelSettings(x_axis=STEP)),
        ws.Section("What differs", panels=[wr.RunComparer(diff_only="split")])]
    return ws.Workspace(entity=entity, project=project, name="Images that Speak", sections=sections,
                        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=100))


def main(arguments: list[str] | None = None) -> None:
    lenient()
    parser = argparse.ArgumentParser(description="Save the W&B view that compares runs.")
    parser.add_argument("--entity", required=True, help="a team or an account")
    parser.add_argument("--project", default="images-that-speak")
    parser.add_argument("--spec", type=Path, help="write the view to this file instead of saving it at W&B")
    given = parser.parse_args(arguments)
    view = workspace(given.entity, given.project)
    if given.spec:
        write_json(given.spec, view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True))
        print(given.spec)
        return
    if not logged_in():
        raise UserError("not logged in to W&B: `wandb login`, or WANDB_API_KEY, and again; --spec FILE "
                        "writes the view without asking W&B")
    try:
        view.save()
    except Exception as error:  # of the network, the server or the account: whatever its client makes of it
        raise UserError(f"W&B could not save the view for --entity {given.entity} --project {given.project} "
                        f"({first_line(error)}); --spec FILE writes it without asking W&B") from error
    print(view.url)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
