"""Options that several commands share, and what they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tuning.cli import completion
from tuning.errors import UserError, shown
from tuning.paths import DEFAULT_CONFIG_DIR, DEFAULT_RESULTS_DIR, ResultsRoot
from tuning.scoring import Focus

ResultsDir = Annotated[
    Path, typer.Option("--results-dir", help="Root of all results.", show_default=True)
]
ConfigDir = Annotated[
    Path,
    typer.Option(
        "--config-dir",
        help="Where generated configurations go, and where groups, spaces and what a file inherits "
        "are looked for before ours.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
FocusOption = Annotated[
    Focus | None,
    typer.Option(
        "--focus",
        help="What trials are ranked by, balanced if not given; also sets both task weights, "
        "to 0.3, 0.6 or 0.5.",
    ),
]
StepScale = Annotated[float, typer.Option(help="Multiplies all step counts, in (0, 1].")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The configuration, YAML or JSON.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Overrides: lora_r=8, training_config.seed=1, models=tiny.",
        metavar="[KEY=VALUE]...",
        autocompletion=completion.overrides,
    ),
]


StudyName = Annotated[
    str, typer.Argument(help="Name of the study.", autocompletion=completion.study_names)
]
TokenizerFile = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        help="The genuine tokenizer.json, or its folder; by default it is looked for.",
    ),
]


class BackendName(StrEnum):
    """Where trials run."""

    LOCAL = "local"
    RAY = "ray"
    LIGHTNING = "lightning"


class TrackingMode(StrEnum):
    """What Weights & Biases is told while a study runs."""

    OFFLINE = "offline"
    ONLINE = "online"
    DISABLED = "disabled"


Tracking = Annotated[
    TrackingMode | None,
    typer.Option(
        "--tracking",
        help="Weights & Biases: offline writes runs that tuning wandb sync sends later, online "
        "also sends them; WANDB_MODE or offline by default.",
    ),
]
Backend = Annotated[
    BackendName,
    typer.Option(
        "--backend", help="Where trials run: this machine, a Ray cluster, or jobs of Lightning.AI."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Trials at once; by default one for each GPU, or else as many as keep the cores busy.",
        min=1,
        max=4096,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="Processor threads of a trial, fixed when a study begins; the cores are divided by "
        "default.",
        min=1,
        max=1024,
    ),
]
PerGpu = Annotated[
    int, typer.Option("--per-gpu", help="Workers that share each GPU.", min=1, max=64)
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="Address of a Ray cluster; RAY_ADDRESS by default, or a cluster of this machine.",
    ),
]
CloudMachine = Annotated[
    str | None,
    typer.Option(
        "--machine",
        help="With --backend lightning: the machine of every job, such as A100; by default each "
        "has that of its own configuration.",
    ),
]
Spot = Annotated[
    bool | None,
    typer.Option(
        "--spot/--no-spot",
        help="With --backend lightning: cheaper machines that may be taken away; as "
        "scheduler.yaml says by default.",
    ),
]
ImpactFrom = Annotated[
    str | None,
    typer.Option(
        "--impact-from",
        help="With --backend lightning: a study whose results say which trials are worth most; "
        "these go first. The study itself by default.",
    ),
]
MaxMemory = Annotated[
    float | None,
    typer.Option(
        "--max-memory",
        help="GiB that a worker may use before it is killed; by default its share of the machine.",
        min=0.1,
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option("--max-time", help="Stop after so long: 90s, 30m, 2h, 1d; running trials wait."),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost",
        help="Stop when the study has cost so much: workers at --hourly-price, or US dollars of "
        "jobs of Lightning.AI.",
        min=0.0,
    ),
]
HourlyPrice = Annotated[
    float, typer.Option("--hourly-price", help="Price of a worker's hour.", min=0.0)
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run trials again that failed before.")
]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where a study runs, and how much it may use."""

    backend: BackendName = BackendName.LOCAL
    workers: int | None = None
    threads: int | None = None
    per_gpu: int = 1
    ray_address: str | None = None
    max_memory: float | None = None
    max_seconds: float | None = None
    max_cost: float | None = None
    hourly_price: float = 0.0
    retry_failed: bool = False
    tracking: TrackingMode | None = None
    machine: str | None = None
    spot: bool | None = None
    impact_from: str | None = None
    config_dir: Path = DEFAULT_CONFIG_DIR

    def __post_init__(self) -> None:
        in_cloud = self.backend is BackendName.LIGHTNING
        if self.max_cost is not None and not self.hourly_price and not in_cloud:
            raise UserError("--max-cost needs --hourly-price: what an hour of a worker costs")
        own = {"machine": self.machine, "spot": self.spot, "impact-from": self.impact_from}
        for name, value in own.items():
            if value is not None and not in_cloud:
                raise UserError(f"--{name} belongs to --backend lightning")
        if in_cloud and self.per_gpu != 1:
            raise UserError("--per-gpu belongs to your own machines; a job has its machine alone")
        if in_cloud and self.hourly_price:
            raise UserError(
                "--hourly-price belongs to your own machines; jobs of Lightning.AI cost what it "
                "says, or prices.yaml"
            )
        if self.ray_address is not None and self.backend is not BackendName.RAY:
            raise UserError("--ray-address belongs to --backend ray")


def seconds_of(text: str | None) -> float | None:
    """Return the seconds that a duration such as 90s, 30m, 2h or 1d has.

    Raises:
        UserError: It is none.
    """
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise UserError(
            f"--max-time must be a number with s, m, h or d, such as 30m, got {shown(text)}"
        )
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2] or "s"]


_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")

RESULTS_DIR = DEFAULT_RESULTS_DIR
CONFIG_DIR = DEFAULT_CONFIG_DIR
DEFAULT_NAME = "spelling_transfer_exp"


def results_root(folder: Path) -> ResultsRoot:
    """Return the results root, made if need be.

    Raises:
        ResultsError: It cannot be written.
    """
    from tuning import files

    files.make_folder(folder)
    return ResultsRoot(folder)


def results_dir_option(folder: Path) -> str:
    """Return the option, after a space, with which another command finds these results."""
    return "" if folder == RESULTS_DIR else f" --results-dir {folder}"


def model_of(model: str | None, adapter: Path | None) -> str:
    """Return the model that is asked: the one given, else the adapter's own, else tiny.

    An adapter may be put on another model than it names, as a folder or a copy of its own; whoever
    did not mean to is told.

    Raises:
        ModelError: No model can have that name, or the adapter names none.
    """
    from tuning.errors import ModelError
    from tuning.model.hub import base_of_adapter, check_name, own_name

    name = model or (base_of_adapter(adapter) if adapter else "tiny")
    check_name(name)
    if model is not None and adapter is not None:
        try:
            made_for = base_of_adapter(adapter)
        except ModelError:
            # It names none, or is damaged, which is said when it is read.
            return name
        if own_name(name) != made_for:
            typer.echo(
                f"note: the adapter in {adapter} says it was made for {made_for}, and is put on "
                f"{name}: unless these are the same weights, the numbers mean little",
                err=True,
            )
    return name


def focus_overrides(focus: Focus | None) -> list[str]:
    """Return the overrides that a focus means: both task weights."""
    if focus is None:
        return []
    return [
        f"transfer_config.position_task_weight={focus.weights.position_weight}",
        f"transfer_config.count_task_weight={focus.weights.count_weight}",
    ]
