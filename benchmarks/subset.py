"""The whole Qwen3 vocabulary against its English part: `python benchmarks/subset.py`.

A Qwen3 with the real 151,936 rows, the real tokenizer and chat template, and a small body of random
weights; each measurement is a process of its own, whole and sliced in turn. Prints the median time
of a training step and of an evaluation pass, the peak memory of both, and their ratios. With so
small a body the head is nearly all of the work. On Qwen3-4B itself it is not: answer tokens alone
reach the head, so with 45 tokens of prompt and 12 of answer it does 2 % of the multiplications.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tuning.config import EvaluationConfig, ExperimentConfig, build
from tuning.evaluation.bench import load_bench
from tuning.evaluation.stored import score
from tuning.model.base import training_data_of
from tuning.model.machine import peak_memory_bytes, quiet_libraries, reset_peak_memory, threads
from tuning.paths import ResultsRoot
from tuning.qwen3_tokenizer import NUM_MODEL_ROWS, tokenizer_source
from tuning.tasks.splits import Split
from tuning.tokens.subset import SubsetRule
from tuning.training.run import train

WHOLE = "whole"


@dataclasses.dataclass(frozen=True)
class Measured:
    """One process."""

    rows: int
    """Tokens of the vocabulary."""
    items: int
    step_seconds: float
    step_mib: float
    """Peak memory of training."""
    pass_seconds: float
    pass_mib: float


def main() -> None:
    """Run the comparison, or one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--words", type=int, default=60, help="words a task in the evaluation")
    parser.add_argument("--rules", nargs="*", default=[SubsetRule.PRINTABLE, SubsetRule.LETTERS])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--head", action="store_true", help="only time a head by its rows")
    parser.add_argument("--one", nargs=2, metavar=("VOCABULARY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, folder = arguments.one
        measured = measure(name, Path(folder), arguments.steps, arguments.words)
        print(json.dumps(dataclasses.asdict(measured)))
        return
    if arguments.head:
        time_heads()
        return
    with tempfile.TemporaryDirectory() as place:
        folder = random_qwen3(Path(place) / "qwen3", arguments.hidden, arguments.layers)
        compare(folder, [WHOLE, *map(str, arguments.rules)], arguments)


def time_heads() -> None:
    """Print how long a head of 256 columns takes for 220 answer tokens, by its number of rows."""
    import torch

    states = torch.randn(220, 256)
    print("| rows | logits, ms, best of 9 | ns a row |\n|---|---|---|")
    for rows in (NUM_MODEL_ROWS, 90_928, 69_003, 69_008):
        weight = torch.randn(rows, 256)
        seconds = []
        for _ in range(9):
            clock = time.perf_counter()
            torch.nn.functional.linear(states, weight)
            seconds.append(time.perf_counter() - clock)
        print(f"| {rows:,} | {1e3 * min(seconds):.1f} | {1e9 * min(seconds) / rows:.0f} |")


def random_qwen3(folder: Path, hidden: int, layers: int) -> Path:
    """Write a Qwen3 with a small body and the real vocabulary."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    settings = Qwen3Config(
        vocab_size=NUM_MODEL_ROWS,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        head_dim=64,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(settings).save_pretrained(folder)
    source = tokenizer_source().path
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source.parent / name, folder / name)
    return folder


def compare(folder: Path, names: list[str], arguments: argparse.Namespace) -> None:
    """Print medians of interleaved measurements, and ratios."""
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for _ in range(arguments.repeats):
        for name in names:
            found[name].append(_in_a_process(name, folder, arguments))
    whole = _median(found[WHOLE])
    print(
        f"Qwen3, {arguments.layers} layers of {arguments.hidden}, random weights, fp32, 32 rows a "
        f"step, {whole.items} items a pass, medians of {arguments.repeats}"
    )
    head = ("vocabulary", "rows", "step, s", "ratio", "peak, MiB", "pass, s", "ratio", "peak, MiB")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name in names:
        one = _median(found[name])
        cells = (
            name,
            f"{one.rows:,}",
            f"{one.step_seconds:.3f}",
            f"{whole.step_seconds / one.step_seconds:.2f}",
            f"{one.step_mib:,.0f}",
            f"{one.pass_seconds:.2f}",
            f"{whole.pass_seconds / one.pass_seconds:.2f}",
            f"{one.pass_mib:,.0f}",
        )
        print("| " + " | ".join(cells) + " |")


def _in_a_process(name: str, folder: Path, arguments: argparse.Namespace) -> Measured:
    sizes = [f"--steps={arguments.steps}", f"--words={arguments.words}"]
    done = subprocess.run(
        [sys.executable, __file__, *sizes, "--one", name, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _median(found: list[Measured]) -> Measured:
    values = [dataclasses.astuple(one) for one in found]
    return Measured(*(statistics.median(column) for column in zip(*values, strict=True)))


def measure(name: str, folder: Path, steps: int, num_words: int) -> Measured:
    """Train some steps and evaluate once, as a trial does."""
    config = _config(name, folder, steps, num_words)
    with quiet_libraries(), threads(None), tempfile.TemporaryDirectory() as place:
        bench = load_bench(config)
        words = bench.words[Split.TRAIN]
        stream = training_data_of(config, words, bench.base.tokenizer).stream
        ends: list[float] = []
        reset_peak_memory()
        train(
            config,
            bench,
            stream,
            ResultsRoot(Path(place)).training("measured"),
            on_progress=lambda step, metrics: ends.append(time.perf_counter()),
        )
        step_mib = peak_memory_bytes() / 2**20
        # The first step warms up; the last line is the evaluation after the last step.
        durations = [b - a for a, b in zip(ends, ends[1:], strict=False)][: steps - 1]
        reset_peak_memory()
        clock = time.perf_counter()
        score(bench, bench.suite)
        return Measured(
            rows=int(bench.base.network.config.vocab_size),
            items=len(bench.suite.items),
            step_seconds=statistics.median(durations),
            step_mib=step_mib,
            pass_seconds=time.perf_counter() - clock,
            pass_mib=peak_memory_bytes() / 2**20,
        )


def _config(name: str, folder: Path, steps: int, num_words: int) -> ExperimentConfig:
    sizes = EvaluationConfig(num_words=num_words, num_monitor_words=3, num_generated_items=9)
    vocabulary = {} if name == WHOLE else {"use_english_only_tokens": True, "subset_rule": name}
    raw = {
        "experiment_name": "subset",
        "tokenizer_config": {"model_name": str(folder), **vocabulary},
        "training_config": {
            "max_steps": steps,
            "warmup_steps": 1,
            "per_device_train_batch_size": 32,
            "gradient_accumulation_steps": 1,
        },
        "transfer_config": {"eval_frequency": 10_000},
        "evaluation_config": sizes.model_dump(),
    }
    return build(raw, "benchmarks/subset.py")


if __name__ == "__main__":
    main()
