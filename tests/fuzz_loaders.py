"""Feeds the loaders of configurations, spaces, records and word lists with what is not right.

The law: a valid object, or a UserError of short lines, within seconds; anything else is printed
with what reproduces it.

    python tests/fuzz_loaders.py --inputs 200000
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import functools
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tuning import composition, config, grid
from tuning.documents import read_document
from tuning.errors import UserError
from tuning.jobs import Tail, check_progress, read_progress
from tuning.paths import StudyFolder, TrainingFolder, shipped_config_dir
from tuning.records import read_record
from tuning.space_laws import check_space
from tuning.study import check_event, read_spec
from tuning.tasks.words import read_word_list

MAX_SECONDS = 5
MAX_CHARACTERS = 1000
"""Of a message, less the name of the file."""

# --- what is fed --------------------------------------------------------------------------------

SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**30, -(10**200), 10**400, 10**4000),
    *(0.5, -0.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")),
    *("", " ", "a", "???", "${oc.env:HOME}", "../x", "/etc/passwd", "a\nb", "a\0b", "\x1b[31mred"),
    *("CON", "-x", "\u2028", "\ud800", "\N{CYRILLIC SMALL LETTER A}", "x" * 300, "1e400", "nan"),
    *("tiny", "os:system", "a:b", "_self_", "models", "<<", "~root", "grid", "20260101_000000"),
)
TOKENS = (
    *(b"{", b"}", b"[", b"]", b":", b": ", b",", b"\n", b"\n  ", b"- ", b"? ", b"&a ", b"*a"),
    *(b"<<: *a", b"!!int ", b"!!float ", b"!!python/object:os.system ", b"!!binary ", b"!!set "),
    *(b"0x" + b"f" * 300, b"9" * 5000, b"1e400", b"NaN", b"Infinity", b"-.inf", b"1:1:1"),
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x1b[31m", b"\\ud800", b'"', b"'", b"|"),
    *(b"---\n", b"...\n", b"%YAML 9.9\n", b"# @package hydra\n", b"${x}", b"\t", b"\r\n", b"???"),
    *(b"defaults", b"null", b"[" * 2000, b'{"a":' * 2000, b"models: tiny", b"x" * 2000),
)


class Source:
    """Makes inputs out of valid ones; the same seed makes the same inputs."""

    def __init__(self, valid: list[bytes], keys: list[str], seed: int) -> None:
        """Take valid files, and the keys that a made-up one may have."""
        self._valid, self._keys = valid, keys
        self._rng = random.Random(seed)
        self._parsed = [_parsed(text) for text in valid]

    def next(self) -> bytes:
        """Return one input."""
        make = self._rng.choices(
            (self._mutated, self._exchanged, self._structured, self._raw), (4, 4, 2, 1)
        )[0]
        return make()

    def _mutated(self) -> bytes:
        """A valid file with bytes cut, doubled, flipped or put in."""
        rng, text = self._rng, bytearray(self._rng.choice(self._valid))
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randint(0, len(text))
            to = min(len(text), at + rng.choice((0, 1, 3, 20, 200)))
            put = rng.choice(
                (b"", bytes([rng.randrange(256)]), rng.choice(TOKENS), text[at:to] * 2)
            )
            text[at:to] = put
        return bytes(text)

    def _exchanged(self) -> bytes:
        """A valid file in which values or keys are others."""
        data = copy.deepcopy(self._rng.choice(self._parsed))
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            data = self._with_another(data)
        return self._written(data)

    def _with_another(self, data: Any) -> Any:
        rng = self._rng
        if not isinstance(data, dict | list) or not data or rng.random() < 0.1:
            return self._value(2)
        if isinstance(data, list):
            index = rng.randrange(len(data))
            data[index] = self._with_another(data[index])
            return data
        key = rng.choice(list(data))
        if rng.random() < 0.15:
            data[self._key()] = data.pop(key)
        elif rng.random() < 0.1:
            del data[key]
        else:
            data[key] = self._with_another(data[key])
        return data

    def _structured(self) -> bytes:
        """A mapping made up of known keys and any values."""
        return self._written({self._key(): self._value(4) for _ in range(self._rng.randint(0, 6))})

    def _raw(self) -> bytes:
        """Bytes, or pieces of syntax in any order."""
        rng = self._rng
        if rng.random() < 0.5:
            return rng.randbytes(rng.choice((0, 1, 10, 300)))
        return b"".join(rng.choice(TOKENS) for _ in range(rng.randint(1, 20)))

    def _key(self) -> str:
        rng = self._rng
        return rng.choice(self._keys) if rng.random() < 0.8 else str(self._scalar())[:400]

    def _scalar(self) -> Any:
        rng = self._rng
        if rng.random() < 0.7:
            return rng.choice(SCALARS)
        return rng.choice((rng.randint(-10, 5000), rng.random(), rng.choice(self._keys)))

    def _value(self, depth: int) -> Any:
        rng = self._rng
        kind = rng.random()
        if depth == 0 or kind < 0.6:
            return self._scalar()
        if kind < 0.8:
            return [self._value(depth - 1) for _ in range(rng.randint(0, 4))]
        return {self._key(): self._value(depth - 1) for _ in range(rng.randint(0, 4))}

    def _written(self, data: Any) -> bytes:
        # JSON is YAML, and YAML shows what JSON cannot say: anchors, tags, numbers of any length.
        if self._rng.random() < 0.8 or not isinstance(data, dict):
            return _json(data).encode("utf-8", "surrogatepass")
        lines = (f"{json.dumps(key)}: {_json(value)}\n" for key, value in data.items())
        return "".join(lines).encode("utf-8", "surrogatepass")


_json = functools.partial(json.dumps, ensure_ascii=False)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(json.dumps(yaml.safe_load(text), default=str))
    except yaml.YAMLError:
        return text.decode()


# --- what is called ------------------------------------------------------------------------------


@dataclass
class Target:
    """A loader, and valid files for it."""

    load: Callable[[Path], Any]
    suffixes: tuple[str, ...]
    valid: list[bytes]
    keys: list[str]


def _shipped(pattern: str) -> list[bytes]:
    return [p.read_bytes() for p in sorted(shipped_config_dir().glob(pattern))]


def _config_target() -> Target:
    whole = config.build({"experiment_name": "a", "timestamp": "20260101_000000"}, "fuzz")
    keys = [*config.KEYS, *config.FLAT_NAMES, *config.ExperimentConfig.model_fields, "defaults"]
    keys += [key.split(".")[-1] for key in config.KEYS]
    own = config.to_yaml(whole).encode()
    # Most begin with a whole one, so that more than the first law is reached.
    valid = [own] * 20 + _shipped("*.yaml") * 5 + _shipped("*/*.yaml")
    return Target(_load_config, (".yaml", ".json"), valid, keys)


def _load_config(path: Path) -> None:
    """Load a configuration; Hydra, which takes most of the time, on a part of what needs none."""
    document = read_document(path)
    if "defaults" in document.data or zlib.crc32(path.read_bytes()) % HYDRA_EVERY == 0:
        composition.load(path, ["models=tiny"])
    else:
        config.build(document.data, document.place)


HYDRA_EVERY = 8


def _load_space(path: Path) -> None:
    """Load a space, as `_load_config` does a configuration."""
    document = read_document(path)
    if "defaults" in document.data or zlib.crc32(path.read_bytes()) % HYDRA_EVERY == 0:
        grid.load_space(str(path))
    else:
        check_space(grid.parse_space(document.data, document.place), document.place)


def _space_target() -> Target:
    from tuning.search_space import SAMPLERS, SearchSpace

    fields = SearchSpace.model_fields
    keys = [f.alias or name for name, f in fields.items()]
    keys += [*config.FLAT_NAMES, "low", "high", "scale", "step", "patience", "models", "defaults"]
    keys += [n for arguments in SAMPLERS.values() for n in arguments.model_fields]
    return Target(_load_space, (".yaml", ".json"), _shipped("search_spaces/*.yaml"), keys)


def _record_target() -> Target:
    lines = [{"event": "started", "num_trials": 2, "slots": 1}]
    lines += [{"event": kind, "trial_id": "0000-0123abcd", **more} for kind, more in _EVENTS]
    lines += [
        {"step": 10, "kind": "train", "loss": 1.5, "num_tokens": 300},
        {"step": 10, "kind": "evaluation"} | dict.fromkeys(_ACCURACIES, 0.5),
    ]
    valid = [json.dumps(_RECORD).encode(), *(json.dumps(line).encode() for line in lines)]
    valid += ["".join(json.dumps(line) + "\n" for line in lines[:-2]).encode()]
    keys = [*_RECORD, *_RECORD["result"], *_RECORD["execution"]]
    return Target(
        _read_results, ("",), valid, [*keys, *(k for line in lines for k in line), "value"]
    )


_ACCURACIES = ("spelling/accuracy", "transfer/position/accuracy", "transfer/count/accuracy")
_EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("proposed", {"parameters": {"lora_r": 8}, "seed": 0}),
    ("submitted", {"at": "2026-01-01T00:00:00+00:00"}),
    ("ended", {"seconds": 1.5, "message": ""}),
    ("promoted", {"step": 5}),
    ("pruning", {"step": 5, "reason": "poor"}),
    ("failed", {"error": "no"}),
]
_ACCURACY = {"value": 0.5, "low": 0.4, "high": 0.6, "num_words": 30, "num_items": 90}
_RECORD: dict[str, Any] = {
    "trial_id": "0000-0123abcd",
    "parameters": {"lora_r": 8},
    "seed": 0,
    "result": {
        "status": "completed",
        "training_key": "0123abcd",
        "weights_key": "0123abcd@4",
        "step": 4,
        "model": "tiny",
        "metrics": dict.fromkeys(_ACCURACIES, 0.5),
        "base_arms": {"four_shot": {"count": _ACCURACY}},
        "left_out_words": {"of another band": 2},
    },
    "execution": {
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:00:01+00:00",
        "host": "h",
        "train_seconds": 1.0,
        "evaluation_seconds": 1.0,
        "num_trained_tokens": 10,
        "peak_memory_bytes": 10,
        "num_threads": 1,
        "device": "cpu",
        "num_attempts": 1,
    },
}


def _read_results(path: Path) -> None:
    """Read the same bytes as every file of results that the program reads back."""
    raw = path.read_bytes()
    folder = path.parent / "results"
    for name in ("record.json", "progress.jsonl", "study.yaml"):
        (folder / name).write_bytes(raw)
    # A line is only read when it is whole.
    (folder / "events.jsonl").write_bytes(raw + b"\n")
    calls: list[Callable[[], Any]] = [
        lambda: read_record(folder / "record.json"),
        lambda: read_progress(TrainingFolder(folder)),
        lambda: read_spec(StudyFolder(folder)),
        lambda: Tail(folder / "events.jsonl", check_event).lines(),
        lambda: Tail(folder / "events.jsonl", check_progress).lines(),
    ]
    refused: list[UserError] = []
    for call in calls:
        try:
            call()
        except UserError as error:
            refused.append(error)
    if len(refused) == len(calls):
        raise max(refused, key=lambda error: len(str(error)))


def _words_target() -> Target:
    valid = [b"apple\nbanana\n# c\n\ncherry\n", b"\xef\xbb\xbfword\r\n", b"abc\n" * 50]
    return Target(read_word_list, ("",), valid, ["apple", "word", "# c", "abcdefghijklmnop"])


TARGETS: Mapping[str, Callable[[], Target]] = {
    "config": _config_target,
    "space": _space_target,
    "record": _record_target,
    "words": _words_target,
}


# --- the law --------------------------------------------------------------------------------------


class TooSlowError(BaseException):
    """An input takes longer than it may; no loader catches it."""


@contextlib.contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    def stop(signum: int, frame: Any) -> None:
        raise TooSlowError(f"takes more than {seconds} s of the processor")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def broken_by(load: Callable[[Path], Any], path: Path) -> str | None:
    """Return how a loader breaks the law on a file; None if it does not."""
    try:
        with _bounded(MAX_SECONDS):
            load(path)
    except UserError as error:
        lines = str(error).replace(str(path), "FILE").split("\n")
        for line in lines:
            if not line or not line.isprintable() or len(line) > MAX_CHARACTERS:
                return f"{type(error).__name__} of {len(line)} characters: {line[:300]!r}"
        return None
    except (Exception, TooSlowError) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [f for f in traceback.extract_tb(error.__traceback__) if "/tuning/" in f.filename]
        at = own[-1] if own else place
        says = " ".join(str(error).split())[:200]
        return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {says}"
    return None


@dataclass
class Outcome:
    """What a run of the fuzzer found."""

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    failures: dict[str, bytes] = field(default_factory=dict)
    """The first input of each way to fail."""
    times: collections.Counter[str] = field(default_factory=collections.Counter)


def fuzz(name: str, inputs: int, seed: int, folder: Path) -> Outcome:
    """Feed one loader with `inputs` inputs."""
    target, outcome = TARGETS[name](), Outcome()
    source = Source(target.valid, target.keys, seed)
    rng = random.Random(seed)
    (folder / "results").mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def counted(path: Path) -> None:
        target.load(path)
        outcome.accepted += 1

    for _ in range(inputs):
        content = source.next()
        path = folder / f"f{rng.choice(target.suffixes)}"
        path.write_bytes(content)
        start = time.process_time()
        found = broken_by(counted, path)
        outcome.slowest = max(outcome.slowest, time.process_time() - start)
        outcome.inputs += 1
        if found is not None:
            # The same fault with other numbers is the same.
            kind = found.split(": ")[0]
            outcome.times[kind] += 1
            if kind not in outcome.failures:
                outcome.failures[kind] = content
                print(f"{name} {path.suffix}: {found}\n  {content[:600]!r}", flush=True)
    outcome.seconds = time.monotonic() - began
    return outcome


def main() -> int:
    """Fuzz every loader, or those named; the exit status says whether the law held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000, help="of all loaders together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("loaders", nargs="*", help=f"of {', '.join(TARGETS)}; all if none is named")
    given = parser.parse_args()
    names = given.loaders or list(TARGETS)
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            done = fuzz(name, given.inputs // len(names), given.seed, Path(folder))
        failed += sum(done.times.values())
        print(
            f"{name}: {done.inputs:,} inputs, {done.accepted:,} valid, "
            f"{sum(done.times.values())} failures of {len(done.times)} kinds, "
            f"{done.seconds:.0f} s, slowest {done.slowest:.2f} s",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
