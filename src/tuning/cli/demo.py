"""`tuning demo`: a whole study of the embedded model, with what happens said before it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tuning.cli import options, study
from tuning.cli.progress import ERRORS
from tuning.cli.study_request import StudyRequest, make_spec

if TYPE_CHECKING:
    from tuning.study import StudySpec

DEMO = "demo"


def demo(
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Search, train, evaluate and report on the embedded model: offline, in minutes.

    Says before each step what happens and why; --quiet and --json say nothing.

    Example: tuning demo --results-dir /tmp/demo
    """
    spec = make_spec(StudyRequest(name=DEMO, space=DEMO, results_dir=results_dir))
    explains = not (quiet or as_json)
    if explains:
        _say("1. Search", search_text(spec))
    study.run_and_print(
        spec,
        results_dir,
        options.Resources(),
        quiet=quiet,
        as_json=as_json,
        before_analysis=lambda: _say("2. Analysis", ANALYSIS) if explains else None,
    )
    if explains:
        _say("3. What to look at", reading_text(results_dir))


def search_text(spec: StudySpec) -> str:
    """Return what a search is, in the numbers of this one."""
    plan = spec.plan()
    num_steps = max(p.config.training_config.max_steps for p in plan.known())
    num_words = spec.base.evaluation_config.num_words
    return (
        f"{plan.num_trials} trials follow. A trial takes one set of hyperparameters, trains "
        f"a small adapter (LoRA) on spelling for {num_steps} steps or fewer, and asks the "
        f"model before and after to spell {num_words} words, to name the letter at a position, and "
        "to count a letter; only spelling was trained.\n"
        "None of these words is trained on, nor any word of their stem (walk, walked, walking): a "
        "right answer cannot be a memory.\n"
        "The default is trained with several seeds, since luck alone also makes a difference. On "
        "two free cores all of it takes about four minutes. Ctrl-C stops, and the same command "
        "goes on. A line a trial says its gains: accuracy after less accuracy before, in points."
    )


ANALYSIS = (
    "All configurations are now compared and ranked. The interval behind each gain holds the "
    "values that other words and seeds might have given; one that holds 0 has shown no change.\n"
    "The best of many looks better than it is, so nothing is called better before that is allowed "
    "for. A plain no is a normal outcome."
)


def reading_text(results_dir: Path) -> str:
    """Return where the results are, and three commands that go on from them."""
    where = options.results_dir_option(results_dir)
    return (
        f"The report is one page for any browser: its first lines are the verdict, its first "
        f"picture the gains. Everything was made from the files in {results_dir / 'data'}.\n"
        "Next:\n"
        f"  tuning study confirm {DEMO}{where}\n"
        "      the winner and the default once more, on fresh seeds: does it hold?\n"
        f"  tuning recommend {DEMO}{where}\n"
        "      what to try next, and why\n"
        f"  tuning study run --space quick --name first{where}\n"
        "      a study of your own; tuning space list shows what else it can search"
    )


def _say(title: str, text: str) -> None:
    ERRORS.print(f"\n[bold]{title}[/bold]")
    ERRORS.print(text, highlight=False, markup=False)
    ERRORS.print()
