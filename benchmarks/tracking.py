"""What tracking costs a trial: `python benchmarks/tracking.py`.

The same study of tiny, in turn without tracking, offline, online, and online with a server that is
away. The server is the tests' own on loopback. A trial's wall time is from its submission to its
end; with one worker, so that what the mirror takes of the processors can be seen.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Table, print_answer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tuning import files
from tuning.paths import ResultsRoot
from tuning.study import check_event
from wandb_server import KEY, loopback

MODES = ("disabled", "offline", "online", "server away")
SPACE = """\
strategy: random
num_trials: 5
replicates_of_default: 1
HPARAM_CANDIDATES: {lora_r: [4, 8, 16], learning_rate: [1.0e-3, 2.0e-3, 5.0e-3]}
pruning: none
experiment:
  tokenizer_config: {model_name: tiny}
  evaluation_config: {num_words: 300}
"""


def main() -> None:
    """Print medians of interleaved repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step-scale", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    trials: dict[str, list[float]] = {mode: [] for mode in MODES}
    whole: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(arguments.repeats):
        for mode in MODES:
            with tempfile.TemporaryDirectory() as folder, loopback() as server:
                url = "http://127.0.0.1:9" if mode == "server away" else server.url
                seconds, each = run(Path(folder), mode, url, arguments)
                time.sleep(_SETTLE_SECONDS)
            trials[mode] += each
            whole[mode].append(seconds)
            print(f"{number}: {mode} {seconds:.1f} s", file=sys.stderr, flush=True)
    rows = [
        {
            "mode": mode,
            "trial": statistics.median(trials[mode]),
            "low": min(trials[mode]),
            "high": max(trials[mode]),
            "study": statistics.median(whole[mode]),
        }
        for mode in MODES
    ]
    print_answer({"repeats": arguments.repeats, "rows": rows}, arguments.json, show)


_SETTLE_SECONDS = 12.0
"""Until a mirror has ended."""


def run(folder: Path, mode: str, url: str, arguments: Any) -> tuple[float, list[float]]:
    """Return the seconds of a study, and of each of its trials but the first, which loads."""
    (folder / "space.yaml").write_text(SPACE)
    tracking = "online" if mode == "server away" else mode
    command = [
        *(sys.executable, "-m", "tuning", "study", "run", "--space", "space.yaml", "--quiet"),
        *("--step-scale", f"{arguments.step_scale:g}", "--workers", str(arguments.workers)),
        *("--threads", "1", "--name", "one", "--tracking", tracking),
        *("--results-dir", str(folder / "results")),
    ]
    own = {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}
    clock = time.perf_counter()
    subprocess.run(
        command, check=True, cwd=folder, env={**os.environ, **own}, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - clock
    events = files.read_json_lines(ResultsRoot(folder / "results").study("one").events, check_event)
    each = [event["seconds"] for event in events if event["event"] == "ended"]
    return seconds, each[1:]


def show(answer: dict[str, Any]) -> Table:
    """Return the table."""
    none = answer["rows"][0]["trial"]
    head = ("tracking", "a trial, s", "from", "to", "against none", "the study, s")
    rows = [
        (
            row["mode"],
            f"{row['trial']:.2f}",
            f"{row['low']:.2f}",
            f"{row['high']:.2f}",
            f"{row['trial'] / none:.3f}",
            f"{row['study']:.1f}",
        )
        for row in answer["rows"]
    ]
    return Table(
        f"What tracking costs, median of {answer['repeats']} studies of 5 trials", head, rows
    )


if __name__ == "__main__":
    main()
