"""`tuning trial`, and `--mode single`: train and evaluate one configuration."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options
from tuning.scoring import Focus

if TYPE_CHECKING:
    from tuning.config import ExperimentConfig
    from tuning.paths import ResultsRoot


@dataclass(frozen=True, kw_only=True)
class SingleRequest:
    """What a user asks of one trial."""

    name: str
    config: Path | None
    focus: Focus | None
    overrides: list[str]
    step_scale: float = 1.0
    dry_run: bool
    quiet: bool
    as_json: bool
    results_dir: Path
    config_dir: Path


def trial(
    config: Annotated[Path, typer.Option("--config", help="The configuration, YAML or JSON.")],
    overrides: options.Overrides = None,
    focus: options.FocusOption = None,
    step_scale: options.StepScale = 1.0,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Train and evaluate one configuration; continue it if it was stopped.

    Example: tuning trial --config configs/hyperparameters/tiny_default.yaml lora_r=8
    """
    run_single(
        SingleRequest(
            name="",
            config=config,
            focus=focus,
            overrides=overrides or [],
            step_scale=step_scale,
            dry_run=dry_run,
            quiet=quiet,
            as_json=as_json,
            results_dir=results_dir,
            config_dir=config_dir,
        )
    )


def run_single(request: SingleRequest) -> None:
    """Run one trial and print what came out.

    Raises:
        UserError: The configuration, the model or the results folder cannot be used.
    """
    from tuning.config import step_scaled

    config = step_scaled(_configuration(request), request.step_scale)
    if request.dry_run:
        _print_plan(request, config)
        return
    root = options.results_root(request.results_dir)
    _train_and_print(request, config, root)


def check_model(config: ExperimentConfig) -> None:
    """Refuse a model that cannot exist before anything heavy is loaded or written.

    Raises:
        ModelError: It is no known name, Hub id or folder.
    """
    from tuning.model.hub import check_name

    check_name(config.tokenizer_config.model_name)


def ensure_model(config: ExperimentConfig) -> None:
    """Have the model's weights here, fetched if need be, before a whole study fails for them.

    Raises:
        ModelError: They cannot be had; the embedded model is named.
    """
    from tuning.model.hub import found_or_fetched

    found_or_fetched(config.tokenizer_config.model_name)


def _configuration(request: SingleRequest) -> ExperimentConfig:
    from tuning.composition import load, overridden
    from tuning.config import build, save, step_scaled

    overrides = [*request.overrides, *options.focus_overrides(request.focus)]
    if request.config is not None:
        config = load(request.config, overrides, [request.config_dir])
        check_model(config)
        return config
    made = build({"experiment_name": request.name}, "--name")
    config = overridden(made, overrides, [request.config_dir])
    check_model(config)
    step_scaled(config, request.step_scale)
    path = save(config, request.config_dir)
    typer.echo(f"wrote {path}", err=True)
    return load(path)


def _print_plan(request: SingleRequest, config: ExperimentConfig) -> None:
    from tuning.config import to_yaml
    from tuning.estimate import estimate
    from tuning.fingerprint import training_key
    from tuning.memory import check_fits, local_machine
    from tuning.paths import ResultsRoot

    machine = local_machine()
    if machine is not None:
        check_fits(config, machine)
    key, cost = training_key(config), estimate([config], ResultsRoot(request.results_dir))
    if request.as_json:
        answer = {"training_key": key, "config": config.model_dump(mode="json")}
        typer.echo(json.dumps({**answer, "estimate": dataclasses.asdict(cost)}))
        return
    typer.echo(f"# would train {key}\n# {cost.says}")
    typer.echo(to_yaml(config), nl=False)


def _train_and_print(request: SingleRequest, config: ExperimentConfig, root: ResultsRoot) -> None:
    from tuning.cli import tables
    from tuning.cli.progress import trial_progress
    from tuning.files import sha256_of_json
    from tuning.fingerprint import training_identity
    from tuning.grid import Proposal

    identity = [training_identity(config), config.model_dump(mode="json", exclude={"timestamp"})]
    trial_id = f"single-{sha256_of_json(identity)[:8]}"
    folder = root.study(config.experiment_name).trial(trial_id)
    proposal = Proposal(
        trial_id=trial_id, parameters={}, seed=config.training_config.seed, config=config
    )
    from tuning.trial import TrialRequest, run_trial

    with trial_progress(quiet=request.quiet) as progress:
        progress.trial_started(proposal, 1, 1)
        record = run_trial(
            TrialRequest(config=config, folder=folder, trial_id=trial_id),
            root,
            progress.trial_moved,
        )
        progress.trial_finished(record, was_there=False)
    if request.as_json:
        typer.echo(json.dumps(dataclasses.asdict(record)))
        return
    result, cost = record.result, record.execution
    arm = config.spelling_config.arm.value
    title = f"{result.model}, {result.step} steps, arm {arm}"
    show = tables.CONSOLE.print
    show(tables.task_table(result.tasks, title))
    show(tables.readings_table(result.tasks, is_tuned=True))
    for name, accuracies in result.base_arms.items():
        show(tables.base_arm_text(name, accuracies), soft_wrap=True)
    show(tables.retention_text(result.retention), soft_wrap=True)
    if result.num_decoded:
        show(tables.agreement_text(result.num_decoded, result.num_disagreements), soft_wrap=True)
    if result.left_out_words:
        show(tables.left_out_text(result.left_out_words), soft_wrap=True)
    show(
        f"transfer_learning_score {result.metrics['transfer_learning_score']:.3f} (a level, not a "
        f"transfer) · {cost.train_seconds:.1f} s training, {cost.num_trained_tokens:,} tokens, "
        f"peak {cost.peak_memory_bytes / 2**20:.0f} MiB"
    )
    adapter = root.training(result.training_key).adapter(result.step)
    show(f"adapter: {adapter}\nrecord: {folder.record}", soft_wrap=True)
    if config.tokenizer_config.analyze_thinking_mode and result.evaluation_key:
        answers = root.training(result.training_key).thinking(result.evaluation_key)
        show(f"answers with thinking on and off: {answers}", soft_wrap=True)
