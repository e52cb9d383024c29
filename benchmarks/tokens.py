"""The token analysis: how long it takes, and words cut at once against one by one.

    python benchmarks/tokens.py

The first is the command with all that it writes, figures included. The second sets the cutting of
`tuning.tokens.words`, pieces included, against `tokenize` of transformers in a loop, over the same
words and in turn, so that what else the machine does falls on both. Asks that all pieces are equal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuning.qwen3_tokenizer import qwen3_tokenizer, tokenizer_source
from tuning.tokens.words import Form, all_words, cut


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--words", type=int, default=len(all_words()), help="of the most frequent")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}")
    seconds = [seconds_of_analysis() for _ in range(arguments.repeats)]
    print(f"whole analysis: {said(seconds)}")
    compare(arguments.words, arguments.repeats)


def seconds_of_analysis() -> float:
    """Return how long the command takes, from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--english-only", "--analyze-thinking", "--quiet", "--results-dir", folder)
        command = (sys.executable, "-m", "tuning", "--mode", "token-analysis", *options)
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def compare(num_words: int, repeats: int) -> None:
    """Cut the same words in both ways, in turn."""
    texts = Form.SPACED.of(all_words()[:num_words])
    loaded, peer = qwen3_tokenizer(), transformers_tokenizer()
    strings = loaded.vocabulary.strings

    def at_once() -> Any:
        return cut(loaded.backend, texts).joined(strings.__getitem__, "|")

    def one_by_one() -> list[list[str]]:
        return [peer.tokenize(text) for text in texts]

    ours, theirs = [], []
    for _ in range(repeats):
        seconds, pieces = timed(at_once)
        ours.append(seconds)
        seconds, alone = timed(one_by_one)
        theirs.append(seconds)
        assert pieces.to_pylist() == ["|".join(found) for found in alone]
    print(f"{num_words:,} words at once: {said(ours)}")
    print(f"{num_words:,} words one by one: {said(theirs)}")
    ratios = [slow / fast for slow, fast in zip(theirs, ours, strict=True)]
    print(f"ratio: {said(ratios, 'x')}")


def transformers_tokenizer() -> Any:
    """Return the tokenizer of transformers, from the same file."""
    from transformers import AutoTokenizer

    source = tokenizer_source().path
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if source.with_name(name).is_file():
                shutil.copyfile(source.with_name(name), Path(folder, name))
        return AutoTokenizer.from_pretrained(folder)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that work takes, and what it gives."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def said(values: list[float], unit: str = " s") -> str:
    """Return median and range."""
    low, high = min(values), max(values)
    return f"median {statistics.median(values):.2f}{unit} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
