"""Qwen3-4B at its full size on this machine: `python benchmarks/full_size.py`.

Weights are random, everything else is real: the genuine tokenizer, our loader, one optimizer step
of LoRA through Lightning, and one full batch of an evaluation. Peak memory of each, held against
the estimate by which configurations are refused (`tuning config memory`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Table, print_answer

QWEN3_4B: dict[str, Any] = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 40_960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "rms_norm_eps": 1e-6,
    "bos_token_id": 151_643,
    "eos_token_id": 151_645,
}
GIB = 2**30


def main() -> None:
    """Make the model where it is not there, and measure a run of each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=36, help="blocks of the model")
    parser.add_argument("--precision", choices=("bf16", "32-true"), default="bf16")
    parser.add_argument("--folder", type=Path, help="keep the model here (8 GB)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--recompute", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_one(arguments.one, arguments)))
        return
    if arguments.folder:
        answer = measure(arguments.folder, arguments)
    else:
        with tempfile.TemporaryDirectory() as folder:
            answer = measure(Path(folder) / "model", arguments)
    print_answer(answer, arguments.json, show)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what a run took with and without gradient checkpointing, each its own process."""
    if not folder.exists():
        make(folder, arguments.layers)
    rows = []
    for more in ([], ["--recompute"]):
        command = [sys.executable, __file__, "--one", str(folder), *more]
        command += ["--precision", arguments.precision, "--batch-size", str(arguments.batch_size)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return {"layers": arguments.layers, "precision": arguments.precision, "rows": rows}


def make(folder: Path, layers: int) -> None:
    """Write a model of Qwen3-4B's size with random weights in bf16, and the genuine tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    from tuning.qwen3_tokenizer import tokenizer_source

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    settings = Qwen3Config(**{**QWEN3_4B, "num_hidden_layers": layers})
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
    network = network.to_empty(device="cpu")
    network.tie_weights()
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        # Norms are 1, as in a model that has just been made.
        torch.nn.init.ones_(parameter) if "norm" in name else parameter.data.normal_(0, 0.02)
    network.save_pretrained(str(partial), max_shard_size="2GB")
    here = tokenizer_source().path.parent
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(here / name, partial / name)
    partial.rename(folder)


def measure_one(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Load, train one step, read one batch of an evaluation."""
    from tuning.config import build
    from tuning.evaluation.bench import load_bench
    from tuning.memory import memory_of
    from tuning.model.base import training_data_of
    from tuning.model.lora import stored_adapter
    from tuning.model.machine import quiet_libraries, this_machine, threads
    from tuning.paths import ResultsRoot
    from tuning.tasks.splits import Split
    from tuning.training.run import train

    raw = {
        "experiment_name": "full_size",
        "tokenizer_config": {"model_name": str(folder)},
        "training_config": {
            "max_steps": 1,
            "warmup_steps": 0,
            "precision": arguments.precision,
            "per_device_train_batch_size": arguments.batch_size,
            "gradient_accumulation_steps": max(1, 32 // arguments.batch_size),
            "gradient_checkpointing": arguments.recompute,
        },
        "evaluation_config": {"num_words": 100, "num_monitor_words": 3, "num_generated_items": 0},
    }
    config = build(raw, __file__)
    found: dict[str, Any] = {"recompute": arguments.recompute}
    with quiet_libraries(), threads(None), tempfile.TemporaryDirectory() as results:
        with _phase(found, "load"):
            bench = load_bench(config)
        stream = training_data_of(config, bench.words[Split.TRAIN], bench.base.tokenizer).stream
        place = ResultsRoot(Path(results)).training("full_size")
        with _phase(found, "train"):
            train(config, bench, stream, place)
        batch = max(
            bench.scorer.prepared(bench.suite).batches, key=lambda b: b.packed.ids_BT.numel()
        )
        tokens = batch.packed.ids_BT.numel()
        with stored_adapter(bench.base, place.adapter(1)), _phase(found, "evaluate"):
            reading = bench.scorer.begin(bench.suite)
            reading.read(batch)
    estimate = memory_of(config, this_machine())
    assert estimate is not None
    return {
        **found,
        "parameters": bench.base.num_parameters,
        "evaluated_tokens": tokens,
        "estimate": {
            "total": estimate.total,
            "train": sum(estimate.always.values()) + sum(estimate.training.values()),
            "evaluate": sum(estimate.always.values()) + sum(estimate.evaluation.values()),
            "parts": {**estimate.always, **estimate.training},
        },
    }


@contextmanager
def _phase(found: dict[str, Any], name: str) -> Iterator[None]:
    """Measure the time and the peak of a block: all memory of the process, mapped files too."""
    from tuning.model.machine import peak_memory_bytes, reset_peak_memory

    clock = time.perf_counter()
    reset_peak_memory()
    yield
    found[name] = {"seconds": time.perf_counter() - clock, "bytes": peak_memory_bytes()}
    print(f"{name}: {found[name]}", file=sys.stderr, flush=True)


def show(answer: dict[str, Any]) -> Table:
    """Return the table."""
    lines = []
    for row in answer["rows"]:
        way = "recomputed" if row["recompute"] else "kept"
        for phase in ("load", "train", "evaluate"):
            expected = row["estimate"].get(phase)
            of = row[phase]
            ratio = f"{expected / of['bytes']:.2f}" if expected else "–"
            shown = f"{expected / GIB:.2f}" if expected else "–"
            lines.append(
                [way, phase, f"{of['seconds']:.0f}", f"{of['bytes'] / GIB:.2f}", shown, ratio]
            )
    size = answer["rows"][0]["parameters"] / 1e9
    return Table(
        f"Full size: {size:.2f} B parameters, {answer['precision']}, one step of 32 rows",
        ["activations", "phase", "seconds", "peak GiB", "estimate GiB", "ratio"],
        lines,
    )


if __name__ == "__main__":
    main()
