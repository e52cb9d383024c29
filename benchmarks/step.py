"""Training steps by us and by `transformers.Trainer`, in turn: `python benchmarks/step.py`.

32 rows a step as 8 x 4, LoRA as by default, the same rows in the same order. Reported are seconds
of a step, prompt and answer tokens a second (each row counted in full), and the share of the
processor's measured matmul peak: 2 N forward and 2 N for the gradient of the activations, for every
token that passes through the model, padding and repeated beginnings included, N the weights of the
blocks; and the same for every position that reaches the head. Attention and the adapter are apart.

`block` is one decoder block of Qwen3-4B's size with random weights and tiny's vocabulary.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Table, medians, print_answer

PROMPTS = ("plain", "own")
SIZES: dict[str, dict[str, Any]] = {
    "block": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 1,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
}


def main() -> None:
    """Print medians of interleaved repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny", "smollm2-135m-q4", "block"])
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16"])
    parser.add_argument(
        "--prompts", choices=PROMPTS, default="plain", help="own: the chat template"
    )
    parser.add_argument("--layers", type=int, default=1, help="blocks of the model block")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--one", nargs=3, metavar=("SIDE", "MODEL", "PRECISION"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_one(*arguments.one, arguments)))
        return
    print_answer(measure(arguments), arguments.json, show)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return medians by model, side and precision; each measurement is a process of its own."""
    runs: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for number in range(arguments.repeats):
        for model in arguments.models:
            for precision in arguments.precisions:
                for side in ("ours", "peer"):
                    found = _process(side, model, precision, arguments)
                    runs.setdefault((model, side, precision), []).append(found)
                    said = f"{number}: {model} {side} {precision} {found['seconds']:.3f} s"
                    print(said, file=sys.stderr, flush=True)
    rows = [
        {"model": model, "side": side, "precision": precision, **medians(of)}
        for (model, side, precision), of in runs.items()
    ]
    return {"prompts": arguments.prompts, "repeats": arguments.repeats, "rows": rows}


def _process(side: str, model: str, precision: str, arguments: argparse.Namespace) -> Any:
    command = [sys.executable, __file__, "--one", side, model, precision]
    command += ["--steps", str(arguments.steps), "--prompts", arguments.prompts]
    command += ["--layers", str(arguments.layers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_one(
    side: str, model: str, precision: str, arguments: argparse.Namespace
) -> dict[str, float]:
    """Train some steps; the first two warm up."""
    from tuning.config import build
    from tuning.model.machine import quiet_libraries, threads

    raw = {
        "experiment_name": "step",
        "tokenizer_config": {"model_name": "tiny" if model in SIZES else model},
        "training_config": {
            "max_steps": arguments.steps + 2,
            "warmup_steps": 1,
            "precision": precision,
        },
        "transfer_config": {"eval_frequency": 10_000},
        "evaluation_config": {"num_words": 10, "num_monitor_words": 3, "num_generated_items": 0},
    }
    config = build(raw, __file__)
    with quiet_libraries(), threads(None), contextlib.redirect_stdout(sys.stderr):
        run = _ours if side == "ours" else _peer
        found = run(config, model, precision, arguments)
        peak = _peak_flops(precision)
    return {
        **found,
        "tokens_per_second": found["tokens"] / found["seconds"],
        "share_of_peak": found["flops"] / found["seconds"] / peak,
    }


def _tokenizer(model: str, prompts: str) -> Any:
    from tuning.model.base import tokenizer_of
    from tuning.model.tokenizer import plain_prompt

    tokenizer = tokenizer_of("tiny" if model in SIZES else model)
    return tokenizer if prompts == "own" else dataclasses.replace(tokenizer, prompt_of=plain_prompt)


def _random_block(layers: int, precision: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tuning.model.hub import found_or_fetched

    settings = AutoConfig.from_pretrained(str(found_or_fetched("tiny")))
    settings.update({**SIZES["block"], "num_hidden_layers": layers})
    settings.layer_types = ["full_attention"] * layers
    torch.manual_seed(0)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    here = "cuda" if torch.cuda.is_available() else "cpu"
    attention = "sdpa" if here == "cuda" else "eager"
    with torch.device(here):
        network = AutoModelForCausalLM.from_config(
            settings, dtype=dtype, attn_implementation=attention
        )
    return network.requires_grad_(False).eval()


def _ours(config: Any, model: str, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from tuning.evaluation.bench import load_bench
    from tuning.model.base import training_data_of
    from tuning.model.machine import peak_gpu_memory_bytes, peak_memory_bytes, reset_peak_memory
    from tuning.paths import ResultsRoot
    from tuning.tasks.splits import Split
    from tuning.training.datamodule import StepBatches
    from tuning.training.run import num_passes, train

    bench = load_bench(config)
    base = dataclasses.replace(bench.base, tokenizer=_tokenizer(model, arguments.prompts))
    if model in SIZES:
        base = dataclasses.replace(base, network=_random_block(arguments.layers, precision))
    scorer = dataclasses.replace(bench.scorer, network=base.network, tokenizer=base.tokenizer)
    bench = dataclasses.replace(bench, base=base, scorer=scorer)
    stream = training_data_of(config, bench.words[Split.TRAIN], base.tokenizer).stream
    ends: list[float] = []
    reset_peak_memory()

    def on_progress(step: int, metrics: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(
            config,
            bench,
            stream,
            ResultsRoot(Path(folder)).training("step"),
            on_progress=on_progress,
        )
    seconds = [b - a for a, b in zip(ends, ends[1:], strict=False)][2:-1]
    batches, parts = StepBatches.of(config, bench, stream), num_passes(config, base)
    steps = [batches.step(number, parts) for number in range(2, 2 + arguments.steps)]
    passed = sum(part.packed.ids_BT.numel() for step in steps for part in step)
    answers = sum(len(part.target_A) for step in steps for part in step)
    return {
        "seconds": statistics.median(seconds),
        "tokens": sum(int(p.num_tokens) for step in steps for p in step) / len(steps),
        "flops": _flops(base.network, passed, answers) / len(steps),
        "peak_mib": peak_memory_bytes() / 2**20,
        "peak_gpu_mib": peak_gpu_memory_bytes() / 2**20,
    }


def _peer(config: Any, model: str, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from peer import Peer, Questions, StepTimes, fresh_model

    from tuning.model.machine import peak_gpu_memory_bytes, peak_memory_bytes

    questions = Questions.of(config)
    questions = dataclasses.replace(questions, tokenizer=_tokenizer(model, arguments.prompts))

    def fresh(name: str) -> Any:
        if model not in SIZES:
            return fresh_model(name)
        # As a user with a GPU does: a base in half precision. On a processor autocast alone.
        on_gpu = torch.cuda.is_available()
        network = _random_block(arguments.layers, precision if on_gpu else "32-true")
        network.set_attn_implementation("sdpa")
        return network

    peer, times = Peer(questions, precision == "bf16", fresh), StepTimes()
    network = peer.train(config, times).get_base_model()
    rows = peer.last_rows
    size = config.training_config.per_device_train_batch_size
    batch = config.training_config.effective_batch_size
    parts = [rows[a : a + size] for a in range(2 * batch, len(rows), size)]
    passed = sum(len(p) * max(len(r.prompt) + len(r.answer) for r in p) for p in parts)
    tokens = sum(len(r.prompt) + len(r.answer) for p in parts for r in p)
    return {
        "seconds": statistics.median(times.seconds[2:]),
        "tokens": tokens / arguments.steps,
        "flops": _flops(network, passed, passed) / arguments.steps,
        "peak_mib": peak_memory_bytes() / 2**20,
        "peak_gpu_mib": peak_gpu_memory_bytes() / 2**20,
    }


def _flops(network: Any, num_tokens: int, num_at_head: int) -> float:
    """Return the operations of a step: forward, and the gradient of the activations."""
    import torch

    head = network.get_output_embeddings()
    blocks = sum(
        m.weight.numel()
        for name, m in network.named_modules()
        if isinstance(m, torch.nn.Linear) and m is not head and "lora_" not in name
    )
    return 4.0 * (blocks * num_tokens + head.weight.numel() * num_at_head)


def _peak_flops(precision: str) -> float:
    """Return the best operations a second of a product as large as caches like it."""
    import torch

    here = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = 8192 if here == "cuda" else 1024
    a, b = (torch.randn(size, size, dtype=dtype, device=here) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        clock = time.perf_counter()
        a @ b
        if here == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - clock)
    return 2 * size**3 / best


def show(answer: dict[str, Any]) -> Table:
    """Return the answer as a table."""
    by_side = {(r["model"], r["precision"], r["side"]): r for r in answer["rows"]}
    rows = []
    for row in answer["rows"]:
        trainer = by_side[row["model"], row["precision"], "peer"]["seconds"]
        slowest = by_side.get((row["model"], "32-true", "peer"), {"seconds": float("nan")})[
            "seconds"
        ]
        rows.append(
            [
                row["model"],
                row["side"],
                row["precision"],
                f"{row['seconds']:.3f}",
                f"{trainer / row['seconds']:.2f}",
                f"{slowest / row['seconds']:.2f}",
                f"{row['tokens_per_second']:,.0f}",
                f"{100 * row['share_of_peak']:.0f} %",
                f"{row['peak_mib']:,.0f}",
            ]
        )
    head = ["model", "side", "precision", "step, s", "against Trainer", "against its fp32"]
    head += ["tokens a second", "share of peak", "peak MiB"]
    title = f"Training step, 32 rows, {answer['prompts']} prompts, median of {answer['repeats']}"
    return Table(title, head, rows)


if __name__ == "__main__":
    main()
