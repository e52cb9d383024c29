"""All speed comparisons, one after the other: `make bench`. Writes RESULTS.md and RESULTS.json.

Each is a process of its own, so none warms the next. `--quick` runs each of them as small as it can
be, to see that it runs; its figures mean nothing and are written nowhere but to the terminal.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Comparison:
    """One benchmark as `make bench` runs it."""

    module: str
    arguments: Sequence[str]
    quick: Sequence[str] | None
    """The smallest form; None leaves it out of a quick run."""


SMOLLM2 = ("--model", "smollm2-135m-q4")
COMPARISONS = (
    Comparison(
        "study",
        ("--step-scale", "0.05", "--words", "300", "--repeats", "3", "--seeds", "4"),
        ("--space", "quick", "--step-scale", "0.002", "--words", "10", "--repeats", "1"),
    ),
    Comparison(
        "study", (*SMOLLM2, "--step-scale", "0.006", "--words", "30", "--repeats", "1"), None
    ),
    Comparison(
        "step",
        ("--steps", "6", "--repeats", "3"),
        ("--models", "tiny", "--precisions", "32-true", "--steps", "4", "--repeats", "1"),
    ),
    Comparison(
        "evaluation",
        ("--items", "3000"),
        ("--items", "90", "--steps", "2", "--adapters", "1"),
    ),
    Comparison("evaluation", (*SMOLLM2, "--items", "540", "--steps", "4", "--adapters", "2"), None),
    Comparison("growth", (), ("--first", "1")),
    Comparison("startup", (), ("--repeats", "1")),
)


def main() -> None:
    """Run them and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", help="names of benchmarks")
    arguments = parser.parse_args()
    sections, answers = [], []
    for comparison in COMPARISONS:
        asked = comparison.quick if arguments.quick else comparison.arguments
        if asked is None or (arguments.only and comparison.module not in arguments.only):
            continue
        answer = run(comparison.module, asked)
        answers.append({"benchmark": comparison.module, "arguments": list(asked), **answer})
        sections.append(section(comparison.module, asked, answer))
        print(sections[-1], flush=True)
    if not arguments.quick and not arguments.only:
        write(sections, answers)


def run(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the JSON that a benchmark prints last."""
    command = [sys.executable, str(HERE / f"{module}.py"), *arguments, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def section(module: str, arguments: Sequence[str], answer: dict[str, Any]) -> str:
    """Return the tables of a benchmark with the command that made them."""
    loaded = importlib.import_module(module)
    tables = [loaded.show(answer)]
    if module == "study":
        tables.append(loaded.show_configurations(answer))
    command = " ".join(("python", f"benchmarks/{module}.py", *arguments))
    return "\n\n".join([f"## {module}", f"`{command}`", *map(str, tables)])


def write(sections: Sequence[str], answers: Sequence[dict[str, Any]]) -> None:
    """Write the results beside this file."""
    head = (
        "# Speed\n\nMade by `make bench`; each table by the command above it. Ratios within one "
        "run are what counts:\nthe machine is shared, and seconds differ from run to run.\n\n"
        f"{answers[0]['machine']}, {date.today().isoformat()}.\n"  # noqa: DTZ011
    )
    (HERE / "RESULTS.md").write_text("\n\n".join([head.rstrip(), *sections]) + "\n", "utf-8")
    (HERE / "RESULTS.json").write_text(json.dumps(answers, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
