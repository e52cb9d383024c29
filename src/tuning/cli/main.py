"""The program `tuning`: its commands, the old `--mode` spelling, and how errors reach a person."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tuning.cli import evaluate, models, options, report, study, tasks, trial, try_out
from tuning.errors import UserError
from tuning.scoring import Focus

app = typer.Typer(
    name="tuning",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Does teaching a language model to spell transfer to letter position and letter count?\n\n"
    "Example: [bold]tuning demo[/bold] searches, trains, evaluates and reports on the embedded "
    "model, offline, in minutes.",
)
app.command("demo")(study.demo)
app.command("trial")(trial.trial)
app.add_typer(study.app, name="study")
app.command("evaluate")(evaluate.evaluate)
app.command("try")(try_out.try_out)
app.command("report")(report.report)
app.add_typer(tasks.app, name="tasks")
app.add_typer(models.app, name="models")


class Mode(StrEnum):
    """What the program does when no subcommand is given."""

    SINGLE = "single"
    GRID = "grid"
    SWEEP = "sweep"
    LIGHTNING = "lightning"
    TOKEN_ANALYSIS = "token-analysis"


_MISSING_PART = {
    Mode.GRID: "the one-at-a-time grid over the default space",
    Mode.SWEEP: "wandb_integration.py (W&B sweeps)",
    Mode.LIGHTNING: "lightning_jobs.py (Lightning.AI jobs)",
    Mode.TOKEN_ANALYSIS: "token_analysis.py (Qwen3 token analysis)",
}


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    mode: Annotated[Mode, typer.Option(help="What to do without a subcommand.")] = Mode.SINGLE,
    name: Annotated[str, typer.Option(help="Name of the experiment.")] = "spelling_transfer_exp",
    config: Annotated[
        Path | None, typer.Option(help="Configuration to train and evaluate.")
    ] = None,
    focus: options.FocusOption = Focus.BALANCED,
    gpu_tier: Annotated[
        Literal["cpu", "t4", "a100"] | None, typer.Option(help="Class of machine.")
    ] = None,
    english_only: Annotated[
        bool, typer.Option("--english-only", help="English tokens only.")
    ] = False,
    analyze_thinking: Annotated[
        bool, typer.Option("--analyze-thinking", help="Also record answers with thinking on.")
    ] = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Run the old `--mode` spelling; with a subcommand, do nothing."""
    if context.invoked_subcommand is not None:
        return
    if mode is not Mode.SINGLE:
        raise UserError(
            f"--mode {mode.value} needs {_MISSING_PART[mode]}, which does not exist yet"
        )
    overrides = {
        "lightning_config.gpu_tier": gpu_tier,
        "tokenizer_config.use_english_only_tokens": english_only or None,
        "tokenizer_config.analyze_thinking_mode": analyze_thinking or None,
    }
    trial.run_single(
        trial.SingleRequest(
            name=name,
            config=config,
            focus=focus,
            overrides=[f"{key}={value}" for key, value in overrides.items() if value is not None],
            dry_run=dry_run,
            quiet=quiet,
            as_json=as_json,
            results_dir=results_dir,
            config_dir=config_dir,
        )
    )


def main() -> None:
    """Run the program; a user's mistake is one clear line a mistake, and exit code 2."""
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"tuning: {line}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
