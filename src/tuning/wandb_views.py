"""A workspace of Weights & Biases that shows the transfer: saved once, by `publish-views`.

What an upload alone cannot bring: scatter plots with a regression line, parallel coordinates and
parameter importance are panels, which W&B keeps apart from runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuning.scoring import METRIC_PREFIX, TRANSFER_SCORE
from tuning.tasks.items import SCORED_TASKS, TRANSFER_TASKS, Task
from tuning.tracked_runs import STEP


def build_workspace(
    entity: str, project: str, study: str | None, parameters: Sequence[tuple[str, bool]]
) -> Any:
    """Return the workspace, not saved yet.

    Args:
        entity: Account or team.
        project: Of the runs.
        study: Whose runs are shown; None for all.
        parameters: Dotted keys of what was varied, and whether on a logarithmic axis.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    gains = {task: wr.SummaryMetric(f"final/{task.value}_gain") for task in SCORED_TASKS}
    transfer = ws.Section(
        name="Does spelling go with transfer?",
        panels=[
            *(
                wr.ScatterPlot(
                    title=f"Gain in {task.value} against gain in spelling",
                    x=gains[Task.SPELLING],
                    y=gains[task],
                    regression=True,
                )
                for task in TRANSFER_TASKS
            ),
            wr.ParallelCoordinatesPlot(
                title="Hyperparameters and gains",
                columns=[
                    *(
                        wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key), log=is_log)
                        for key, is_log in parameters
                    ),
                    *(wr.ParallelCoordinatesPlotColumn(metric=gain) for gain in gains.values()),
                ],
            ),
        ],
        is_open=True,
    )
    importance = ws.Section(
        name="Which hyperparameters matter?",
        panels=[
            wr.ParameterImportancePlot(with_respect_to=name)
            for name in (TRANSFER_SCORE, *(f"final/{t.value}_gain" for t in SCORED_TASKS))
        ],
        is_open=True,
    )
    curves = ws.Section(
        name="Curves",
        panels=[
            wr.LinePlot(title=f"{task.value} accuracy", x=STEP, y=[f"{prefix}/accuracy"])
            for task, prefix in METRIC_PREFIX.items()
        ],
    )
    shown = [ws.Metric("JobType") == "trial"]
    if study is not None:
        shown.append(ws.Metric("Group") == study)
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"Transfer: {study or 'all studies'}",
        sections=[transfer, importance, curves],
        runset_settings=ws.RunsetSettings(filters=shown),
    )
