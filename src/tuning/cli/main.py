"""The program `tuning`: its commands, the old `--mode` spelling, and how errors reach a person."""

from __future__ import annotations

import copy
import errno
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, NoReturn, cast

import typer

from tuning.cli import (
    completion,
    configuration,
    confirm,
    demo,
    doctor,
    evaluate,
    lightning,
    models,
    options,
    recommend,
    report,
    study,
    sweeping,
    tasks,
    tokens,
    tracking,
    trial,
    try_out,
)
from tuning.cli import space as space_commands
from tuning.cli.study_request import StudyRequest
from tuning.errors import MAX_LISTED, UserError, shown, without_secrets

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
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("trial")(trial.trial)
study.app.command("confirm")(confirm.confirm)
app.add_typer(study.app, name="study")
app.add_typer(configuration.app, name="config")
app.add_typer(space_commands.app, name="space")
app.command("evaluate")(evaluate.evaluate)
app.command("try")(try_out.try_out)
app.command("analyze")(report.analyze)
app.command("report")(report.report)
app.command("recommend")(recommend.recommend)
app.add_typer(tasks.app, name="tasks")
app.add_typer(models.app, name="models")
app.add_typer(tokens.app, name="tokens")
app.add_typer(tracking.app, name="wandb")
app.add_typer(lightning.app, name="lightning")


class Mode(StrEnum):
    """What the program does when no subcommand is given."""

    SINGLE = "single"
    GRID = "grid"
    SWEEP = "sweep"
    LIGHTNING = "lightning"
    TOKEN_ANALYSIS = "token-analysis"


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"tuning {version('tuning')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it, end."),
    ] = False,
    mode: Annotated[Mode, typer.Option(help="What to do without a subcommand.")] = Mode.SINGLE,
    name: Annotated[str, typer.Option(help="Name of the experiment.")] = options.DEFAULT_NAME,
    config: options.ConfigFile = None,
    space: Annotated[
        str,
        typer.Option(
            help="With --mode grid, sweep or lightning: a space by name, or a YAML file.",
            autocompletion=completion.space_names,
        ),
    ] = "default",
    count: sweeping.Count = sweeping.DEFAULT_COUNT,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="With --mode sweep: without a server; adopted when synced."),
    ] = False,
    focus: options.FocusOption = None,
    gpu_tier: Annotated[
        Literal["cpu", "t4", "a100"] | None, typer.Option(help="Class of machine.")
    ] = None,
    english_only: Annotated[
        bool, typer.Option("--english-only", help="English tokens only.")
    ] = False,
    analyze_thinking: Annotated[
        bool, typer.Option("--analyze-thinking", help="Also record answers with thinking on.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the configurations, print the plan, run none.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Run the old `--mode` spelling; with a subcommand, do nothing."""
    if context.invoked_subcommand is not None:
        _check_no_options(context)
        return
    is_given = {name for name in context.params if _was_given(context, name)}
    if mode is Mode.TOKEN_ANALYSIS:
        _check_untrained(is_given)
        tokens.run_analysis(
            tokens.AnalysisRequest(
                english_only=english_only,
                thinking=analyze_thinking,
                config=config,
                quiet=quiet,
                as_json=as_json,
                results_dir=results_dir,
                config_dir=config_dir,
            )
        )
        return
    if mode is Mode.SINGLE and "space" in is_given:
        raise UserError(
            "--space belongs to --mode grid, sweep and lightning; a single trial varies nothing"
        )
    for option in {"count", "offline"} & is_given if mode is not Mode.SWEEP else ():
        raise UserError(f"--{option} belongs to --mode sweep")
    given = {
        "experiment_name": name if config is not None and "name" in is_given else None,
        "lightning_config.gpu_tier": gpu_tier,
        "tokenizer_config.use_english_only_tokens": "true" if english_only else None,
        "tokenizer_config.analyze_thinking_mode": "true" if analyze_thinking else None,
    }
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    if mode in (Mode.GRID, Mode.SWEEP, Mode.LIGHTNING):
        request = StudyRequest(
            name=name,
            space=space,
            config=config,
            focus=focus,
            overrides=overrides,
            results_dir=results_dir,
            config_dir=config_dir,
        )
        if mode is Mode.LIGHTNING:
            study.in_cloud(request, gpu_tier, dry_run=dry_run, quiet=quiet, as_json=as_json)
            return
        if mode is Mode.GRID:
            study.grid(request, dry_run=dry_run, quiet=quiet, as_json=as_json)
            return
        asked = sweeping.SweepRequest(
            study=request,
            count=count,
            offline=offline,
            dry_run=dry_run,
            quiet=quiet,
            as_json=as_json,
        )
        sweeping.run_sweep(asked)
        return
    trial.run_single(
        trial.SingleRequest(
            name=name,
            config=config,
            focus=focus,
            overrides=overrides,
            dry_run=dry_run,
            quiet=quiet,
            as_json=as_json,
            results_dir=results_dir,
            config_dir=config_dir,
        )
    )


def _check_untrained(given: set[str]) -> None:
    """Refuse an option that changes a training: a token analysis trains nothing."""
    for name in ("name", "space", "focus", "gpu_tier", "dry_run", "count", "offline"):
        if name in given:
            raise UserError(
                f"--{name.replace('_', '-')} belongs to --mode single and grid; a token analysis "
                f"trains nothing"
            )


def _check_no_options(context: typer.Context) -> None:
    """Refuse an option before a subcommand, which would have no effect there."""
    for name in context.params:
        if _was_given(context, name):
            option = {"as_json": "json"}.get(name, name).replace("_", "-")
            raise UserError(
                f"--{option} goes after the subcommand: "
                f"tuning {context.invoked_subcommand} ... --{option}"
            )


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__mro__[2])
"""The error of the library that reads the command line; it has no public name there."""


def main() -> None:
    """Run the program; a user's mistake is one clear line a mistake, and exit code 2."""
    try:
        _check_arguments(sys.argv[1:])
        sys.exit(_program()(standalone_mode=False) or 0)
    except UserError as error:
        _refuse(str(error))
    except _USAGE_ERROR as error:
        text: str = error.format_message()  # type: ignore[attr-defined]
        # A group without a command has shown its help, and nothing is left to say.
        if "No such command" in text and "=" in text:
            text = (
                f"{text.partition('.')[0]}; the old spelling takes no overrides, but --config FILE"
            )
        if text.strip():
            print(f"tuning: {_plain(text)}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _refuse(f"no file can have so long a name: {shown(str(error.filename))}")
        # What names no file of ours is the output that this was printed to.
        if error.filename is not None:
            raise
        print(f"tuning: cannot write the output: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def _refuse(text: str) -> NoReturn:
    """Say what is wrong, a line a mistake, and end."""
    lines = text.split("\n")
    if len(lines) > MAX_LISTED:
        lines = [*lines[:MAX_LISTED], f"and {len(lines) - MAX_LISTED} more mistakes"]
    for line in lines:
        clean = _CONTROL.sub(lambda found: repr(found[0])[1:-1], without_secrets(line))
        print(f"tuning: {clean}", file=sys.stderr)
    sys.exit(2)


_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that move the cursor, end a line, turn its direction, or are none."""


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what no name or value can hold: a message that repeats it would not be one line."""
    # A question may have several lines, and any text has tokens.
    is_free = arguments[:1] == ["try"] or arguments[:2] == ["tokens", "show"]
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if is_free and not before.startswith("--"):
            continue
        if _CONTROL.search(argument):
            raise UserError(
                f"an argument must be one line without control characters, got {shown(argument)}"
            )


def why_refused(arguments: Sequence[str]) -> str | None:
    """Return why this program would not take a command line, or None; runs nothing of it."""
    command, left, parent = _program(), list(arguments), None
    if {"-h", "--help"} & set(left):
        return "it only shows help"
    try:
        while True:
            if not left and hasattr(command, "commands"):
                return "a command is missing"
            context = command.make_context(command.name or "tuning", left, parent=parent)
            if not hasattr(command, "commands"):
                return None
            left = [*context._protected_args, *context.args]
            _, inner, left = command.resolve_command(context, left)
            command, parent = inner, context
    except _USAGE_ERROR as error:
        return _plain(error.format_message())  # type: ignore[attr-defined]
    except typer.Exit:
        return None


def _plain(text: str) -> str:
    """Return a message of the command line's library without its words for programmers."""
    text = " ".join(text.split())
    return text.replace("Value error, ", "").replace("Input should be", "must be")


def _program() -> Any:
    """Return the command line, where every command takes the options of both folders."""
    program = typer.main.get_command(app)
    folders = [p for p in program.params if p.name in ("results_dir", "config_dir")]
    _accept(program, folders)
    return program


def _accept(command: Any, folders: Sequence[Any]) -> None:
    """Have every command below take the options, also one that has no use for them."""
    for inner in getattr(command, "commands", {}).values():
        _accept(inner, folders)
        known = {parameter.name for parameter in inner.params}
        for option in folders:
            if option.name not in known and not hasattr(inner, "commands"):
                unused = copy.copy(option)
                unused.expose_value, unused.hidden = False, True
                inner.params.append(unused)
