"""One-pass scoring against batched `generate()`: `python benchmarks/evaluation.py`.

Adapters trained for a few steps at different learning rates are asked the same items on both sides,
in turn. Ours is `OnePassScorer.score`, with items that it decodes for real and the preparation
of the items; the peer's is `peer.verdicts`, with the adapter merged and the items tokenised before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Table, print_answer

RATES = (2e-4, 5e-4, 1e-3, 2e-3, 5e-3)


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=60, help="of each adapter")
    parser.add_argument("--adapters", type=int, default=5, help=f"at most {len(RATES)}")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    print_answer(measure(arguments), arguments.json, show)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the adapters, then ask them on both sides in turn."""
    from tuning.model.machine import quiet_libraries, threads

    with quiet_libraries(), threads(None), tempfile.TemporaryDirectory() as folder:
        return _measure(arguments, Path(folder))


def _measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from peer import verdicts

    from tuning.config import build
    from tuning.evaluation.bench import load_bench
    from tuning.model.base import training_data_of
    from tuning.model.lora import stored_adapter
    from tuning.paths import ResultsRoot
    from tuning.tasks.splits import Split
    from tuning.training.run import train

    root = ResultsRoot(folder)
    raw = {
        "experiment_name": "evaluation",
        "tokenizer_config": {"model_name": arguments.model},
        "transfer_config": {"eval_frequency": 10_000},
        "evaluation_config": {
            "num_words": -(-arguments.items // 9) + 10,
            "num_monitor_words": 3,
            "num_generated_items": 0,
        },
    }
    ours: list[float] = []
    peers: list[float] = []
    agreement: list[float] = []
    shares: list[float] = []
    accuracies: list[float] = []
    for rate in RATES[: arguments.adapters]:
        raw["training_config"] = {
            "max_steps": arguments.steps,
            "warmup_steps": 1,
            "learning_rate": rate,
        }
        config = build(raw, __file__)
        bench = load_bench(config)
        tokenizer = bench.base.tokenizer
        suite = bench.suite.part(bench.suite.spread(arguments.items))
        place = root.training(f"rate{rate}")
        stream = training_data_of(config, bench.words[Split.TRAIN], tokenizer).stream
        train(config, bench, stream, place)
        encoded = tokenizer.encode_items(suite.items)
        for _ in range(arguments.repeats):
            with stored_adapter(bench.base, place.adapter(arguments.steps)):
                clock = time.perf_counter()
                table = bench.scorer.score(suite)
                ours.append(time.perf_counter() - clock)
            right = _merged_verdicts(verdicts, bench, place, arguments, suite, encoded, peers)
            strict = table["strict_correct"].tolist()
            agreement.append(sum(a == b for a, b in zip(strict, right, strict=True)) / len(right))
            shares.append(float(table["decoded_for_real"].mean()))
            accuracies.append(sum(right) / len(right))
        said = f"rate {rate}: ours {ours[-1]:.2f} s, peer {peers[-1]:.2f} s"
        print(said, file=sys.stderr, flush=True)
    return {
        "model": arguments.model,
        "items": len(suite.items),
        "adapters": len(RATES[: arguments.adapters]),
        "prompt_tokens": statistics.mean(len(row.prompt) for row in encoded),
        "seconds": {"ours": statistics.median(ours), "peer": statistics.median(peers)},
        "ratio": statistics.median(b / a for a, b in zip(ours, peers, strict=True)),
        "agreement": statistics.mean(agreement),
        "share_decoded": statistics.mean(shares),
        "accuracy": statistics.mean(accuracies),
    }


def _merged_verdicts(
    verdicts: Any,
    bench: Any,
    place: Any,
    arguments: argparse.Namespace,
    suite: Any,
    encoded: Any,
    seconds: list[float],
) -> list[bool]:
    from peer import fresh_model
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(
        fresh_model(arguments.model), str(place.adapter(arguments.steps))
    )
    merged = loaded.merge_and_unload()
    clock = time.perf_counter()
    right: list[bool] = verdicts(merged, bench.base.tokenizer, suite.items, encoded)
    seconds.append(time.perf_counter() - clock)
    return right


def show(answer: dict[str, Any]) -> Table:
    """Return the answer as a table."""
    seconds = answer["seconds"]
    rows = [
        ["one pass", f"{seconds['ours']:.2f}", f"{answer['ratio']:.2f}"],
        ["`generate()`", f"{seconds['peer']:.2f}", "1"],
    ]
    title = (
        f"Evaluation: {answer['model']}, {answer['items']:,} items, {answer['adapters']} adapters, "
        f"{answer['prompt_tokens']:.0f} tokens a prompt"
    )
    note = (
        f"Agreement item by item {100 * answer['agreement']:.2f} %; decoded for real "
        f"{100 * answer['share_decoded']:.2f} %; right {100 * answer['accuracy']:.1f} % in the mean"
    )
    return Table(title, ["side", "seconds", "times as fast"], rows, [note])


if __name__ == "__main__":
    main()
