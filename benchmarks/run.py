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
from datetime import UTC, datetime
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
        "study", (*SMOLLM2, "--step-scale", "0.02", "--words", "60", "--repeats", "1"), None
    ),
    Comparison(
        "step",
        ("--steps", "5", "--repeats", "3"),
        ("--models", "tiny", "--precisions", "32-true", "--steps", "4", "--repeats", "1"),
    ),
    Comparison(
        "evaluation",
        ("--items", "3000"),
        ("--items", "90", "--steps", "2", "--adapters", "1"),
    ),
    Comparison("evaluation", (*SMOLLM2, "--items", "540", "--steps", "4", "--adapters", "2"), None),
    Comparison("full_size", (), None),
    Comparison("growth", (), ("--first", "1")),
    Comparison("startup", (), ("--repeats", "1")),
)


def main() -> None:
    """Run them and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    names = sorted({comparison.module for comparison in COMPARISONS})
    parser.add_argument("--only", nargs="+", choices=names, help="others keep their results")
    arguments = parser.parse_args()
    for comparison in COMPARISONS:
        asked = comparison.quick if arguments.quick else comparison.arguments
        if asked is None or (arguments.only and comparison.module not in arguments.only):
            continue
        answer = {
            "benchmark": comparison.module,
            "arguments": list(asked),
            "date": datetime.now(UTC).date().isoformat(),
            **run(comparison.module, asked),
        }
        print(section(answer), flush=True)
        if not arguments.quick:
            keep(answer)


def run(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the JSON that a benchmark prints last."""
    command = [sys.executable, str(HERE / f"{module}.py"), *arguments, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def section(answer: dict[str, Any]) -> str:
    """Return the tables of a benchmark with the command that made them."""
    module = answer["benchmark"]
    loaded = importlib.import_module(module)
    tables = [loaded.show(answer)]
    if module == "study":
        tables.append(loaded.show_configurations(answer))
    command = " ".join(("python", f"benchmarks/{module}.py", *answer["arguments"]))
    made = f"`{command}`, {answer['date']}, {answer['machine']}"
    return "\n\n".join([f"## {module}", made, *map(str, tables)])


def keep(answer: dict[str, Any]) -> None:
    """Put an answer in the place of an older one, and write the page anew."""
    path = HERE / "RESULTS.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else []
    kept = {(of["benchmark"], *of["arguments"]): of for of in [*known, answer]}
    order = [(c.module, *c.arguments) for c in COMPARISONS]
    answers = [kept[key] for key in order if key in kept]
    path.write_text(json.dumps(answers, indent=1) + "\n", "utf-8")
    (HERE / "RESULTS.md").write_text("\n\n".join([HEAD, *map(section, answers)]) + "\n", "utf-8")


HEAD = """\
# Speed

Made by `make bench`; each table by the command above it. Ratios within one run are what counts:
machines are shared, and seconds differ from run to run. Figures of tiny are no evidence about
Qwen3-4B."""


if __name__ == "__main__":
    main()
