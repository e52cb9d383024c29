"""From a configuration to its stream of training examples, and what was left out of it.

No torch: what needs a tokenizer takes its functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuning.config import ExperimentConfig
from tuning.errors import DataError
from tuning.tasks import count, position, replay, spelling
from tuning.tasks.difficulty import Band
from tuning.tasks.items import CountTokens, Template
from tuning.tasks.probes import PROBES
from tuning.tasks.replay import Replay, ReplayFile, ShippedReplay
from tuning.tasks.splits import Split, split_words
from tuning.tasks.stream import TrainingStream, words_in_band
from tuning.tasks.words import (
    SubjectWords,
    benchmark_words,
    exclusions,
    read_word_list,
    words_in,
)

Encodable = Callable[[Sequence[str]], Sequence[str]]
"""Those of the words that a model has tokens for, in every form that tasks write them in."""


@dataclass(frozen=True)
class TrainingData:
    """What a configuration trains on."""

    stream: TrainingStream
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Words of the user's own list that are not trained on, counted by reason."""


def training_data(
    config: ExperimentConfig,
    words: SubjectWords,
    count_tokens: CountTokens,
    encodable: Encodable,
) -> TrainingData:
    """Return the training examples of a configuration.

    Args:
        config: Its spelling section and seed say what is trained.
        words: Words of the training split.
        count_tokens: The model's tokenizer.
        encodable: The same.

    Raises:
        NotFoundError: A file of the user's own does not exist.
        DataError: It cannot be used, or no word is left.
    """
    settings = config.spelling_config
    left_out: dict[str, int] = {}
    offered = words
    if settings.word_list is not None:
        offered, left_out = _own_words(Path(settings.word_list), encodable)
    # A pseudo-word is hard and an augmentation: without either there are none.
    with_pseudo = settings.augmentation and settings.difficulty is Band.HARD
    candidates = offered.all if with_pseudo else offered.real
    spelled = words_in_band(candidates, settings.difficulty, count_tokens, offered.pseudo_set)
    if settings.word_list is not None:
        left_out["of another band"] = len(candidates) - len(spelled)
        if not spelled:
            raise DataError(
                f"{settings.word_list}: no word is left to train on at difficulty "
                f"{settings.difficulty.value}; left out: {_in_words(left_out)}"
            )
    stream = TrainingStream(
        spelled_words=spelled,
        replay=_replay(settings.replay_file, words),
        data_ratio=settings.data_ratio,
        augmentation=settings.augmentation,
        seed=config.training_config.seed,
        arm=settings.arm,
    )
    return TrainingData(stream, left_out)


def _own_words(path: Path, encodable: Encodable) -> tuple[SubjectWords, dict[str, int]]:
    """Return the words of a user's list that may be trained on, and how many may not, and why."""
    listed = read_word_list(path)
    allowed = exclusions(listed)
    train = split_words(allowed.kept)[Split.TRAIN]
    kept = tuple(encodable(train))
    return SubjectWords(kept), {
        "benchmark words": len(allowed.listed),
        "of a benchmark word's stem": len(allowed.same_stem),
        "of the validation and test splits": len(allowed.kept) - len(train),
        "without tokens in this model": len(train) - len(kept),
    }


def _in_words(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "none"


def _replay(path: str | None, words: SubjectWords) -> Replay:
    return ShippedReplay(words.real) if path is None else ReplayFile(Path(path))


# --- what is never a subject --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListCounts:
    """What the benchmark words take out of one list."""

    num_words: int
    num_listed: int
    num_same_stem: int
    num_kept: int


@dataclass(frozen=True, slots=True)
class ExclusionReport:
    """Which words are never spelled, joined, asked about or repeated in training."""

    num_benchmark_words: int
    lists: Mapping[str, ListCounts]
    exempt: tuple[str, ...]
    """Benchmark words in the wording of templates and fixed replay items."""
    left_out: tuple[str, ...]
    """Words left out of the first list."""


def exclusion_report(
    lists: Mapping[str, Sequence[str]], other_templates: Sequence[Template] = ()
) -> ExclusionReport:
    """Report what the benchmark words take out of word lists.

    Args:
        lists: Words by the name of their list; the words left out of the first are named.
        other_templates: Templates beside those of the tasks.
    """
    sorted_out = {name: exclusions(words) for name, words in lists.items()}
    first = next(iter(sorted_out.values()))
    return ExclusionReport(
        num_benchmark_words=len(benchmark_words()),
        lists={
            name: ListCounts(len(lists[name]), len(e.listed), len(e.same_stem), len(e.kept))
            for name, e in sorted_out.items()
        },
        exempt=tuple(sorted(words_in(wordings(other_templates)) & benchmark_words())),
        left_out=first.listed + first.same_stem,
    )


def wordings(other_templates: Sequence[Template] = ()) -> list[str]:
    """Return the wording of every template and fixed replay item, without subject words."""
    templates = (
        *spelling.TEMPLATES,
        *spelling.INVERSE_TEMPLATES,
        *position.TEMPLATES,
        *count.TEMPLATES,
        *(template for probe in PROBES for template in probe.templates),
        *other_templates,
    )
    texts = [re.sub(r"\{\w+\}", " ", template.text) for template in templates]
    separators = [separator.name for separator in spelling.SEPARATORS]
    carriers = [carrier.replace("{word}", " ") for carrier in spelling.CARRIERS]
    return [*texts, *separators, *carriers, *replay.fixed_texts()]
