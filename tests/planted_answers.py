"""What planted models say: one generative model of answers, pure in its seed. No network.

An item is in one of three states: a model does not know it, knows it but not its format, or
answers it to the letter. The strict reading needs the third state, the choice reading the second or
third, as in a real evaluation, where a right answer has the likeliest first token. Words have an
ability that all tasks, readings and runs share. Training moves items between states at rates that
make the expected gain exactly what was planted, over words as over seeds.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import optimize, special

from tuning import measures
from tuning.files import sha256_of_json
from tuning.tasks import spelling
from tuning.tasks.baselines import LetterGuesser, fit_letter_guesser
from tuning.tasks.items import EVALUATED_TASKS, Item, Task
from tuning.tasks.lenient import LenientReading, Outcome, read_leniently
from tuning.tasks.pseudo_words import pseudo_words
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.suite import Suite, build_suite, choices_of
from tuning.tasks.words import SubjectWords, english_words

# Shapes: N items, W words of the pool, K tasks (3), T evaluations on the way, D decoded items.

# --- what is planted ----------------------------------------------------------------------------


class Answers(StrEnum):
    """How a model comes to its answers."""

    PLANTED = "planted"
    ORACLE = "oracle"
    """Everything is right."""
    WORD_BLIND = "word_blind"
    """Position by n alone, count always 1: the word is never looked at. Spelling as planted."""


class CurveShape(StrEnum):
    """How position and count move on the way; spelling always rises to its end."""

    RISE = "rise"
    RISE_THEN_DECAY = "rise_then_decay"
    FALL = "fall"
    FLAT = "flat"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Expected gains of a configuration over the untouched model, as rates: 0.05 is 5 points."""

    spelling: float = 0.0
    position: float = 0.0
    count: float = 0.0
    position_choice: float | None = None
    """None: as strict."""
    count_choice: float | None = None
    curve: str = "rise"
    """rise, rise_then_decay, fall or flat."""
    peak: float = 0.1
    """With rise_then_decay: how far the curve stands above a plain rise, at 40 % of the way."""
    answers: Answers = Answers.PLANTED

    def __post_init__(self) -> None:
        shape, ends = CurveShape(self.curve), (self.position, self.count)
        if shape is CurveShape.FALL and max(ends) > 0:
            raise ValueError(f"a curve that falls cannot end at {max(ends):+g}")
        if shape is CurveShape.FLAT and any(ends):
            raise ValueError(f"a flat curve ends at 0, not at {ends}")

    @property
    def strict_K(self) -> np.ndarray:
        """Gains in the strict reading."""
        return np.array([self.spelling, self.position, self.count])

    @property
    def choice_K(self) -> np.ndarray:
        """Gains in the choice reading; spelling has none and moves as strict."""
        given = (None, self.position_choice, self.count_choice)
        return np.array([s if c is None else c for s, c in zip(self.strict_K, given, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Control:
    """A base and an effect whose right reading is known."""

    base_rates: tuple[float, float, float] = (0.35, 0.4, 0.35)
    base_answers: Answers = Answers.PLANTED
    effect: Effect = Effect()


CONTROLS: Mapping[str, Control] = {
    "word_blind": Control(
        base_rates=(0.35, 0.12, 0.29),
        base_answers=Answers.WORD_BLIND,
        effect=Effect(spelling=0.3, answers=Answers.WORD_BLIND),
    ),
    "oracle": Control(effect=Effect(answers=Answers.ORACLE)),
    "speller": Control(effect=Effect(spelling=0.3)),
    "ceiling": Control(base_rates=(0.98, 0.4, 0.35), effect=Effect()),
    "format_only": Control(
        effect=Effect(spelling=0.1, position=0.1, count=0.1, position_choice=0.0, count_choice=0.0)
    ),
}
"""A guesser before and after, everything right, spelling without transfer, nothing left to gain,
and a gain in format alone."""


# --- the questions ------------------------------------------------------------------------------

POOL_DEPTH = 40_000
"""Most frequent words, of whose validation split suites are made."""
ABILITY_DEVIATION = 1.0
"""Standard deviation of the words' ability, in logits."""
TEMPLATE_LOGITS = (0.2, 0.0, -0.2)
CHOICE_LEAD = 0.15
"""By how much the untouched model's choice accuracy exceeds the strict one."""
NUM_DIGITS = 5
"""Digits that planted models answer counts with: 0 to 4."""


@dataclass(frozen=True)
class Questions:
    """A suite, and what of it is the same for all models."""

    suite: Suite
    pool: tuple[str, ...]
    guesser: LetterGuesser
    task_N: np.ndarray
    """Place of the task in `EVALUATED_TASKS`; items stand task by task."""
    word_N: np.ndarray
    """Place of the word in `pool`."""
    template_N: np.ndarray
    """Place of the template among the three of its task."""
    gold_N: np.ndarray
    """Place of the right answer among the choices; -1 for spelling."""
    blind_N: np.ndarray
    """Place of the word-blind answer; -1 for spelling."""
    decoded_D: np.ndarray
    table: pa.Table
    """Predictions of a tuned model, all wrong."""

    @property
    def items(self) -> Sequence[Item]:
        """The items."""
        return self.suite.items

    @functools.cached_property
    def readings(self) -> dict[tuple[int, str], LenientReading]:
        """Readings that were made before."""
        return {}


class Pool(NamedTuple):
    """Words of which suites are made."""

    asked: SubjectWords
    ranks: Mapping[str, int]
    guesser: LetterGuesser
    best_by_n: Mapping[int, str]
    """The commonest letter at each position, whatever the word."""


@functools.cache
def pool_of(depth: int) -> Pool:
    """Return words of the validation split, and what guessers know of the training split."""
    real = english_words()[:depth]
    splits = split_subjects(SubjectWords(real, pseudo_words(real)))
    trained = splits[Split.TRAIN].real
    longest = max(map(len, trained))
    at_n = {n: Counter(w[n - 1] for w in trained if len(w) >= n) for n in range(1, longest + 1)}
    return Pool(
        asked=splits[Split.VALIDATION],
        ranks={word: rank for rank, word in enumerate(real)},
        guesser=fit_letter_guesser(trained),
        best_by_n={n: counts.most_common(1)[0][0] for n, counts in at_n.items()},
    )


@functools.lru_cache(maxsize=8)
def questions(num_words: int, num_decoded: int) -> Questions:
    """Return the suite of so many words a task, and what a study needs of it."""
    pool = pool_of(max(POOL_DEPTH, 40 * num_words))
    suite = build_suite(pool.asked, num_words, lambda words: [_cut(w, pool) for w in words])
    items, places = suite.items, {word: i for i, word in enumerate(pool.asked.all)}
    templates = {task: sorted({i.template for i in items if i.task == task}) for task in Task}
    decoded_D = np.array(suite.spread(num_decoded), dtype=np.int64)
    return Questions(
        suite=suite,
        pool=pool.asked.all,
        guesser=pool.guesser,
        task_N=np.array([EVALUATED_TASKS.index(Task(item.task)) for item in items]),
        word_N=np.array([places[item.word] for item in items]),
        template_N=np.array([templates[Task(i.task)].index(i.template) for i in items]),
        gold_N=np.array([_place(item, item.answer) for item in items]),
        blind_N=np.array([_place(item, _blind_answer(item, pool)) for item in items]),
        decoded_D=decoded_D,
        table=pa.Table.from_pandas(_constant_frame(suite), preserve_index=False),
    )


def _cut(word: str, pool: Pool) -> list[str]:
    """Cut a word as a tokenizer would: frequent ones whole, others into parts of 2 to 4 letters."""
    if pool.ranks.get(word, POOL_DEPTH) < 3_000:
        return [word]
    size = 2 + int(sha256_of_json(word)[:4], 16) % 3
    return [word[i : i + size] for i in range(0, len(word), size)]


def _place(item: Item, answer: str) -> int:
    choices = choices_of(item.task)
    return choices.index(answer) if choices else -1


def _blind_answer(item: Item, pool: Pool) -> str:
    return pool.best_by_n[item.n or 1] if item.task is Task.POSITION else "1"


def _constant_frame(suite: Suite) -> pd.DataFrame:
    """Return a frame with the columns and types of a real evaluation."""
    items, facts = suite.items, suite.facts
    missing = [None] * len(items)
    return pd.DataFrame(
        {
            "task": [str(item.task) for item in items],
            "word": [item.word for item in items],
            "template": [item.template for item in items],
            "prompt": [item.question for item in items],
            "gold": [item.answer for item in items],
            "n": pd.array([item.n for item in items], dtype="Int64"),
            "letter": pd.array([item.letter for item in items], dtype="string"),
            "stratum": [item.stratum for item in items],
            "band": [fact.band.value for fact in facts],
            "tokens": ["|".join(fact.tokens) for fact in facts],
            "num_tokens": [fact.num_tokens for fact in facts],
            "is_pseudo_word": [fact.is_pseudo_word for fact in facts],
            "letter_token_length": pd.array([f.letter_token_length for f in facts], dtype="Int64"),
            measures.STRICT: np.zeros(len(items), dtype=bool),
            measures.CHOICE: pd.array(missing, dtype="boolean"),
            "choice": pd.array(missing, dtype="string"),
            "margin": np.ones(len(items), dtype=np.float32),
            "decoded_for_real": np.zeros(len(items), dtype=bool),
            "text": pd.array(missing, dtype="string"),
            "extracted": pd.array(missing, dtype="string"),
            "outcome": pd.array(missing, dtype="string"),
            measures.LENIENT: pd.array(missing, dtype="boolean"),
            "character_error_rate": pd.array(missing, dtype="Float64"),
            "length_error": pd.array(missing, dtype="Int64"),
            "seen_tokens": [_seen(item.word) for item in items],
        }
    )


def _seen(word: str) -> str:
    """Return whether training met the tokens of a word: the same for all trainings."""
    return ("all", "all", "some", "none")[int(sha256_of_json([word, "seen"])[:4], 16) % 4]


# --- the model of answers -----------------------------------------------------------------------

UNKNOWN, KNOWN, EXACT = 0, 1, 2
"""States of an item."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """What all models of a study have in common."""

    base_rates: tuple[float, float, float]
    base_answers: Answers
    seed_deviation: float
    """Standard deviation of the gain of a task between seeds."""
    word_deviation: float
    """Of a configuration's effect between words, the same for all its seeds."""
    word_seed_deviation: float
    """Of a run's effect between words."""
    churn: float
    """Share of the items whose strict answer changes where nothing is planted."""
    seed: int

    def rng(self, *key: object) -> np.random.Generator:
        """Return a generator that is a pure function of the seed and `key`."""
        return np.random.default_rng(int(sha256_of_json([self.seed, *map(str, key)])[:16], 16))

    @functools.cached_property
    def masses_KS(self) -> np.ndarray:
        """Share of the items of each task in each state before training."""
        strict_K = np.array(self.base_rates)
        choice_K = np.minimum(strict_K + CHOICE_LEAD, (1 + strict_K) / 2)
        choice_K[0] = strict_K[0]
        return np.stack([1 - choice_K, choice_K - strict_K, strict_K], axis=1)

    @functools.cached_property
    def _abilities(self) -> dict[int, np.ndarray]:
        return {}

    def ability_W(self, num_words: int) -> np.ndarray:
        """Return the ability of each word of the pool, in logits."""
        if num_words not in self._abilities:
            drawn_W = self.rng("ability").normal(0, ABILITY_DEVIATION, num_words)
            self._abilities[num_words] = drawn_W
        return self._abilities[num_words]

    def noise_K(self) -> np.ndarray:
        """Return by how much deviations shrink where little can rise or fall."""
        return np.minimum(1, 4 * self.masses_KS[:, [UNKNOWN, EXACT]].min(axis=1))

    def check(self, effect: Effect) -> None:
        """Refuse an effect that the untouched model has no room for.

        Raises:
            ValueError: It has none.
        """
        if effect.answers is Answers.ORACLE:
            return
        wanted_KF = _flows(effect.strict_K, effect.choice_K)
        for task, mass_S, flow_F in zip(EVALUATED_TASKS, self.masses_KS, wanted_KF.T, strict=True):
            both, learned, formed = flow_F
            out = {
                "does not know": (mass_S[UNKNOWN], max(both, 0) + max(learned, 0)),
                "knows in another format": (mass_S[KNOWN], max(formed, 0) + max(-learned, 0)),
                "answers exactly": (mass_S[EXACT], max(-both, 0) + max(-formed, 0)),
            }
            for says, (there, asked) in out.items():
                if asked > there + 1e-9:
                    raise ValueError(
                        f"{task}: the effect takes {asked:.3g} of the items from those that the "
                        f"untouched model {says}, which are {there:.3g}"
                    )


@functools.lru_cache(maxsize=64)
def _logit_of(rate: float) -> float:
    """Return the logit whose mean over abilities and templates is a rate."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    shifts = ABILITY_DEVIATION * nodes[:, None] + np.array(TEMPLATE_LOGITS)

    def excess(logit: float) -> float:
        return float(weights @ special.expit(logit + shifts).mean(axis=1) / weights.sum() - rate)

    return float(optimize.brentq(excess, -40, 40)) if 0 < rate < 1 else (40.0 if rate else -40.0)


def base_states(population: Population, asked: Questions) -> np.ndarray:
    """Return the state of each item before training, shape (N,)."""
    ability_N = population.ability_W(len(asked.pool))[asked.word_N]
    ability_N = ability_N + np.array(TEMPLATE_LOGITS)[asked.template_N]
    # The same draw for both readings: who answers exactly also knows.
    draw_N = population.rng("base", asked.suite.key).random(len(ability_N))
    masses_KS = population.masses_KS
    choice_K = [_logit_of(round(float(1 - rate), 9)) for rate in masses_KS[:, UNKNOWN]]
    strict_K = [_logit_of(round(float(rate), 9)) for rate in masses_KS[:, EXACT]]
    known_N = draw_N < special.expit(np.array(choice_K)[asked.task_N] + ability_N)
    exact_N = draw_N < special.expit(np.array(strict_K)[asked.task_N] + ability_N)
    states_N: np.ndarray = known_N.astype(np.int8) + exact_N
    return states_N


def deviations(
    population: Population, asked: Questions, configuration: str, run: str
) -> np.ndarray:
    """Return by how much an item's shift differs from the planted one, shape (N,).

    Seeds differ task by task, and words configuration by configuration and run by run.
    """
    num_words, noise_K = len(asked.pool), population.noise_K()
    seed_K = population.rng("seed", run).normal(0, population.seed_deviation, 3)
    of_word_KW = population.rng("word", configuration).normal(size=(3, num_words))
    of_run_KW = population.rng("word and run", run).normal(size=(3, num_words))
    word_KW = population.word_deviation * of_word_KW + population.word_seed_deviation * of_run_KW
    shift_KW = noise_K[:, None] * (seed_K[:, None] + word_KW)
    shift_N: np.ndarray = shift_KW[asked.task_N, asked.word_N]
    return shift_N


def moved(
    states_N: np.ndarray,
    strict: np.ndarray,
    choice: np.ndarray,
    masses_NS: np.ndarray,
    churn: np.ndarray | float,
    draws: np.ndarray,
) -> np.ndarray:
    """Return the states after training.

    Args:
        states_N: The states before.
        strict: Expected gain of each item in the strict reading. Shape (N,) or (T, N).
        choice: In the choice reading.
        masses_NS: Expected share of each state in the item's task.
        churn: Share of the items that change where nothing is planted.
        draws: Uniform in [0, 1), of the shape of the result.
    """
    both, learned, formed = _flows(strict, choice)
    unknown_N, known_N, exact_N = masses_NS.T
    most = np.minimum(churn, np.minimum(unknown_N, exact_N))
    noise = np.maximum(0, most - np.abs(both)) / 2
    ways = {
        UNKNOWN: (unknown_N, (EXACT, noise + _up(both)), (KNOWN, _up(learned))),
        KNOWN: (known_N, (EXACT, _up(formed)), (UNKNOWN, _up(-learned))),
        EXACT: (exact_N, (UNKNOWN, noise + _up(-both)), (KNOWN, _up(-formed))),
    }
    after = np.broadcast_to(states_N, draws.shape).copy()
    for state, (mass_N, (first, flow), (second, other)) in ways.items():
        drawn = draws * mass_N
        here = states_N == state
        after[here & (drawn < flow)] = first
        after[here & (drawn >= flow) & (drawn < flow + other)] = second
    return after


def _flows(strict: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Return net flows that give both gains: unknown to exact, unknown to known, known to exact."""
    together = np.minimum(np.abs(strict), np.abs(choice)) * (strict * choice > 0)
    both = np.sign(strict) * together
    return np.stack([both, choice - both, strict - both])


def _up(flow: np.ndarray) -> np.ndarray:
    return np.maximum(flow, 0)


# --- what they say ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Said:
    """One model's answers to a suite."""

    strict_N: np.ndarray
    chosen_N: np.ndarray
    """Place of the likeliest choice; -1 for spelling."""
    readings: Sequence[LenientReading]
    """Of the decoded items."""

    @property
    def lenient_D(self) -> np.ndarray:
        """Whether decoded answers mean the right thing."""
        return np.array([reading.outcome is Outcome.CORRECT for reading in self.readings])


def base_said(population: Population, asked: Questions) -> Said:
    """Return the untouched model's answers."""
    states_N = base_states(population, asked)
    return _said(population, asked, states_N, population.base_answers, "base")


def tuned_said(
    population: Population, asked: Questions, effect: Effect, configuration: str, run: str
) -> Said:
    """Return a tuned model's answers.

    Args:
        population: What all models share.
        asked: The questions.
        effect: What is planted.
        configuration: Names the configuration; its effect on single words follows from it.
        run: Names the run: configuration and seed.
    """
    shift_N = deviations(population, asked, configuration, run)
    states_N = moved(
        base_states(population, asked),
        effect.strict_K[asked.task_N] + shift_N,
        effect.choice_K[asked.task_N] + shift_N,
        population.masses_KS[asked.task_N],
        population.churn,
        population.rng("run", run).random(len(shift_N)),
    )
    return _said(population, asked, states_N, effect.answers, run)


def _said(
    population: Population, asked: Questions, states_N: np.ndarray, answers: Answers, run: str
) -> Said:
    rng = population.rng("said", run)
    if answers is Answers.ORACLE:
        states_N = np.full_like(states_N, EXACT)
    chosen_N = _choices(population, asked, states_N, rng)
    if answers is Answers.WORD_BLIND:
        is_asked_N = asked.gold_N >= 0
        right_N = np.where(asked.blind_N == asked.gold_N, EXACT, UNKNOWN).astype(states_N.dtype)
        states_N = np.where(is_asked_N, right_N, states_N)
        chosen_N = np.where(is_asked_N, asked.blind_N, -1)
    luck_D = rng.random(len(asked.decoded_D))
    readings = [
        _reading(asked, int(i), int(states_N[i]), int(chosen_N[i]), float(luck))
        for i, luck in zip(asked.decoded_D, luck_D, strict=True)
    ]
    return Said(states_N == EXACT, chosen_N, readings)


def _choices(
    population: Population, asked: Questions, states_N: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the likeliest choice of each item; a wrong one is mostly the same in all models."""
    size_K = np.array([1, len(choices_of(Task.POSITION)), NUM_DIGITS])
    size_N = size_K[asked.task_N]
    usual_N = population.rng("wrong", asked.suite.key).random(len(states_N))
    is_new_N = rng.random(len(states_N)) < 0.3
    place_N = np.where(is_new_N, rng.random(len(states_N)), usual_N)
    off_N = 1 + (place_N * (size_N - 1)).astype(int)
    chosen_N = np.where(states_N == UNKNOWN, (asked.gold_N + off_N) % size_N, asked.gold_N)
    return np.where(asked.gold_N < 0, -1, chosen_N)


UNPARSEABLE_SHARE = 0.1
"""Of answers that are not exact."""


def _reading(asked: Questions, index: int, state: int, chosen: int, luck: float) -> LenientReading:
    item = asked.items[index]
    text = _text(item, state, chosen, luck)
    key = (index, text)
    if key not in asked.readings:
        asked.readings[key] = read_leniently(item, text)
    return asked.readings[key]


def _text(item: Item, state: int, chosen: int, luck: float) -> str:
    if state == EXACT:
        return item.answer
    if luck < UNPARSEABLE_SHARE:
        return f"{item.word}?"
    if item.task is Task.SPELLING:
        return _wrong_spelling(item.word, luck)
    if state == KNOWN:
        return f"It is: {item.answer}."
    return choices_of(item.task)[chosen]


def _wrong_spelling(word: str, luck: float) -> str:
    if luck < 0.25:
        return f"It is: {spelling.spell(word, '.')}"
    cut = 1 + int(luck * (len(word) - 1))
    letters = word[:cut] + word[cut + 1 :] if luck < 0.7 else word[:cut] + word[cut - 1 :]
    return spelling.spell(letters, " ")


# --- as a table ---------------------------------------------------------------------------------


def table_of(asked: Questions, said: Said, *, is_tuned: bool) -> pa.Table:
    """Return answers as the table that an evaluation stores."""
    has_choice_N = asked.gold_N >= 0
    right_N = said.chosen_N == asked.gold_N
    digits = np.array([*choices_of(Task.POSITION), *choices_of(Task.COUNT)], dtype=object)
    first_N = np.where(asked.task_N == 2, len(choices_of(Task.POSITION)), 0)
    choice_N = digits[np.where(has_choice_N, first_N + said.chosen_N, 0)]
    columns: dict[str, Any] = {
        measures.STRICT: pa.array(said.strict_N),
        measures.CHOICE: pa.array(right_N, mask=~has_choice_N),
        "choice": pa.array(choice_N, type=pa.large_string(), mask=~has_choice_N),
        **_free_columns(asked, said),
    }
    table = asked.table
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.field(name), column)
    return table if is_tuned else table.drop_columns(["seen_tokens"])


def _free_columns(asked: Questions, said: Said) -> dict[str, pa.Array]:
    readings = said.readings
    values: dict[str, tuple[list[Any], pa.DataType]] = {
        "text": ([r.text for r in readings], pa.large_string()),
        "extracted": ([r.extracted for r in readings], pa.large_string()),
        "outcome": ([r.outcome.value for r in readings], pa.large_string()),
        measures.LENIENT: ([r.outcome is Outcome.CORRECT for r in readings], pa.bool_()),
        "character_error_rate": ([r.character_error_rate for r in readings], pa.float64()),
        "length_error": ([r.length_error for r in readings], pa.int64()),
    }
    columns = {}
    for name, (found, kind) in values.items():
        spread: list[Any] = [None] * len(asked.items)
        for index, value in zip(asked.decoded_D, found, strict=True):
            spread[index] = value
        columns[name] = pa.array(spread, type=kind)
    return columns


# --- on the way ---------------------------------------------------------------------------------


def accuracies_on_the_way(
    population: Population,
    asked: Questions,
    gains_TK: np.ndarray,
    share_T: np.ndarray,
    configuration: str,
    run: str,
) -> np.ndarray:
    """Return strict accuracies of a small suite, shape (T, K).

    Args:
        population: What all models share.
        asked: The small suite.
        gains_TK: Expected gain of each evaluation and task.
        share_T: How much of a run's own deviations and churn has come about, in [0, 1].
        configuration: Names the configuration.
        run: Names the run.
    """
    shift_N = deviations(population, asked, configuration, run)
    strict_TN = gains_TK[:, asked.task_N] + share_T[:, None] * shift_N
    states_TN = moved(
        base_states(population, asked),
        strict_TN,
        strict_TN,
        population.masses_KS[asked.task_N],
        population.churn * share_T[:, None],
        population.rng("on the way", run).random(strict_TN.shape),
    )
    exact_TN = states_TN == EXACT
    tasks = range(len(EVALUATED_TASKS))
    return np.stack([exact_TN[:, asked.task_N == k].mean(axis=1) for k in tasks], axis=1)
