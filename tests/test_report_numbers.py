"""Every number in every table of the report, made again from the files by another route.

Nothing of the analysis is imported: records are read as JSON, answers by pandas, intervals and tests
are written down again from their definitions with numpy, scipy and statsmodels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests

from backend_support import folder_in_memory
from planted_study import Effect, always, write_planted_study
from report_pages import NONE, Cell, Page, Table, near
from tests_support import small_mapping
from tuning import report
from tuning.config import build
from tuning.paths import ResultsRoot
from tuning.search_space import SearchSpace
from tuning.study import StudySpec
from tuning.transfer_analysis import analyze

TASKS = ("spelling", "position", "count")
TRANSFER = ("position", "count")
PREFIX = {"spelling": "spelling", "position": "transfer/position", "count": "transfer/count"}
STRICT, CHOICE, LENIENT = "strict_correct", "choice_correct", "lenient_correct"


def effect_of(parameters: Mapping[str, Any], seed: int) -> Effect:
    if parameters.get("arm") == "direct":
        return Effect(spelling=0.05, position=0.3, count=0.3)
    if parameters.get("arm") == "format_control":
        return Effect(position=0.05, count=0.05, position_choice=0.0, count_choice=0.0)
    gain = 0.02 * parameters.get("lora_r", 0) / 4
    return Effect(spelling=0.2 + gain, position=0.08 + gain, count=0.05)


SPACE = {
    "HPARAM_CANDIDATES": {
        "arm": ["format_control", "direct"],
        "lora_r": [4, 8],
        "max_steps": [8, 16],
    },
    "replicates_of_default": 3,
}


AGAIN = {"HPARAM_CANDIDATES": {"lora_r": [8]}, "replicates_of_default": 2}
"""What fresh seeds train again."""


class Study(NamedTuple):
    """A study as its files tell it, and its page."""

    page: Page
    folder: Path
    records: list[dict[str, Any]]
    spec: dict[str, Any]


@pytest.fixture(scope="module")
def study() -> Iterator[Study]:
    """Return a planted study with controls, a failure and a trial that was stopped."""
    with folder_in_memory() as folder:
        root = ResultsRoot(folder)
        sizes = {"num_words": 150, "num_monitor_words": 15, "num_generated_items": 150}
        for name, space, seed, ends in (
            ("planted", SPACE, 0, {"failed": [7], "pruned": [8]}),
            ("planted_confirm", AGAIN, 100, {}),
        ):
            spec = StudySpec(
                name=name,
                space=SearchSpace.model_validate(space),
                base=build(small_mapping(), "test"),
                seed=seed,
                confirms="planted" if name == "planted_confirm" else None,
            )
            write_planted_study(root, spec, effect_of, **sizes, **ends)
        page = Page(report.render(analyze(root, "planted"), {}))
        yield study_of(folder, "planted", page)


def study_of(folder: Path, name: str, page: Page) -> Study:
    place = folder / "data" / name
    records = [json.loads(p.read_text()) for p in sorted(place.glob("trials/*/record.json"))]
    return Study(page, folder, records, yaml.safe_load((place / "study.yaml").read_text()))


# --- from the files -----------------------------------------------------------------------------


class Row(NamedTuple):
    """A configuration with the answers of each of its seeds."""

    label: str
    records: list[dict[str, Any]]
    before: pd.DataFrame
    after: list[pd.DataFrame]

    @property
    def is_control(self) -> bool:
        return self.label.startswith("arm=")


def answers(study: Study, key: str, evaluation: str) -> pd.DataFrame:
    place = study.folder / "data" / "trainings" / key / "evaluations" / evaluation
    return pd.read_parquet(place / "predictions.parquet")


def label_of(parameters: Mapping[str, Any]) -> str:
    return (
        ", ".join(
            f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in parameters.items()
        )
        or "default"
    )


def rows_of(study: Study) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for record in study.records:
        result = record["result"]
        if result["status"] != "completed":
            continue
        label = label_of(record["parameters"])
        if label not in found:
            base = answers(study, result["base_key"], result["base_evaluation_key"])
            found[label] = Row(label, [], base, [])
        found[label].records.append(record)
        found[label].after.append(answers(study, result["training_key"], result["evaluation_key"]))
    return found


@pytest.fixture(scope="module")
def rows(study: Study) -> dict[str, Row]:
    """Return the configurations by their labels."""
    return rows_of(study)


# --- the statistics, again ----------------------------------------------------------------------

Series = pd.Series
"""By word: by how much a value would move without that word's luck."""


class Number(NamedTuple):
    """A value with what each word adds."""

    value: float
    words: Series
    count: int
    """Words asked."""

    def plus(self, other: Number, factor: float = 1.0) -> Number:
        words = self.words.add(factor * other.words, fill_value=0.0)
        value = self.value + factor * other.value
        return Number(value, words, max(self.count, other.count))

    def times(self, factor: float) -> Number:
        return Number(self.value * factor, self.words * factor, self.count)


def mean_of(values: Series, words: Series) -> Number:
    groups = values.groupby(words)
    moved = (groups.sum() - values.mean() * groups.size()) / len(values)
    return Number(values.mean(), moved, groups.ngroups)


def average(runs: Sequence[Number]) -> Number:
    total = runs[0]
    for run in runs[1:]:
        total = total.plus(run)
    return total.times(1 / len(runs))


def of_words(number: Number) -> float:
    """Return the variance that words bring in."""
    return number.count / (number.count - 1) * float((number.words**2).sum())


class Spread(NamedTuple):
    """Between runs that differ in the seed alone."""

    total: float
    words: float
    freedom: int


def spread_of(groups: Sequence[Sequence[Number]]) -> Spread | None:
    repeated = [runs for runs in groups if len(runs) > 1]
    freedom = sum(len(runs) - 1 for runs in repeated)
    if not freedom:
        return None
    total = words = 0.0
    for runs in repeated:
        mean = average(runs)
        total += sum((run.value - mean.value) ** 2 for run in runs)
        words += sum(of_words(run.plus(mean, -1)) for run in runs)
    return Spread(total / freedom, words / freedom, freedom)


class Interval(NamedTuple):
    """A value with its interval, its test, and what it could have found."""

    value: float
    low: float
    high: float
    p: float = 1.0
    detectable: float = 0.0


Part = tuple[float, float]
"""A variance with its degrees of freedom."""


def half_width(parts: Sequence[Part], level: float) -> float:
    return np.sqrt(sum(stats.t.isf(level / 2, f) ** 2 * v for v, f in parts if v > 0))


def interval_of(value: float, parts: Sequence[Part]) -> Interval:
    half = half_width(parts, 0.05)
    p = 1e-12
    if half_width(parts, 1e-12) > abs(value) > 0:
        p = optimize.brentq(lambda x: half_width(parts, x) - abs(value), 1e-12, 1, xtol=1e-15)
    return Interval(value, value - half, value + half, p)


def estimate(runs: Sequence[Number], borrowed: Spread | None) -> Interval:
    mean, own = average(runs), spread_of([runs])
    spread, words = own or borrowed, of_words(mean)
    if spread is None:
        found = interval_of(mean.value, [(words, mean.count - 1)])
        return found._replace(detectable=effect_with_power([(0.0, 1), (words, mean.count - 1)]))
    rest = max(0.0, words - spread.words / len(runs))
    whole = [(spread.total / len(runs), spread.freedom), (rest, mean.count - 1)]
    apart = max(0.0, spread.total - spread.words)
    parts = [(apart / len(runs), spread.freedom), (words, mean.count - 1)]
    found = interval_of(mean.value, parts if own else whole)
    return found._replace(detectable=effect_with_power(whole))


def difference(
    a: Sequence[Number], b: Sequence[Number], spread: Spread | None, factor: float = 1.0
) -> Interval:
    share = 1 / len(a) + factor**2 / len(b)
    apart = average(a).plus(average(b), -factor)
    assert spread is not None
    rest = max(0.0, of_words(apart) - share * spread.words)
    parts = [(share * spread.total, spread.freedom), (rest, apart.count - 1)]
    return interval_of(apart.value, parts)


def effect_with_power(parts: Sequence[Part]) -> float:
    """Return the effect that a t test finds in 80 % of studies of typical luck with seeds."""
    (seeds, freedom), (words, num) = parts
    parts = [(seeds * freedom / stats.chi2.ppf(0.5, freedom), freedom), (words, num)]
    error = np.sqrt(sum(v for v, _ in parts))
    if seeds:
        wide = half_width(parts, 0.05) / error
        at = optimize.brentq(lambda f: stats.t.ppf(0.975, f) - wide, 0.3, 1e7)
        freedom = min(max(at, freedom), num)
    else:
        freedom = num
    critical = stats.t.ppf(0.975, freedom)
    if freedom > 200:
        return float((critical + stats.norm.ppf(0.8)) * error)
    shift = optimize.brentq(lambda s: stats.nct.sf(critical, freedom, s) - 0.8, 0.5, 60)
    return float(shift * error)


def readings(frame: pd.DataFrame, task: str, reading: str) -> Series:
    rows = frame[frame["task"] == task]
    return rows[reading].astype(float)


def gains(row: Row, task: str, reading: str = STRICT) -> list[Number]:
    before = readings(row.before, task, reading)
    found = []
    for frame in row.after:
        change = (readings(frame, task, reading) - before).dropna()
        found.append(mean_of(change, frame.loc[change.index, "word"]))
    return found


def base_of(row: Row, task: str, reading: str = STRICT) -> Number:
    values = readings(row.before, task, reading).dropna()
    return mean_of(values, row.before.loc[values.index, "word"])


def objectives(row: Row, weights: tuple[float, float]) -> list[Number]:
    found = []
    for seed in range(len(row.after)):
        level = {t: base_of(row, t).plus(gains(row, t)[seed]) for t in TASKS}
        both = level["position"].plus(level["count"]).times(0.5)
        smaller = min((level["spelling"], both), key=lambda number: number.value)
        score = level["position"].times(weights[0]).plus(level["count"], weights[1])
        found.append(score.plus(smaller, 0.2))
    return found


class Known(NamedTuple):
    """What all tables share."""

    default: Row
    ranked: list[Row]
    controls: list[Row]
    objectives: dict[str, list[Number]]
    spread: Spread | None
    weights: tuple[float, float]

    def spread_in(self, task: str, reading: str = STRICT) -> Spread | None:
        return spread_of([gains(self.default, task, reading)])


@pytest.fixture(scope="module")
def known(study: Study, rows: dict[str, Row]) -> Known:
    """Return the ranking, made again."""
    return known_of(study, rows)


def known_of(study: Study, rows: dict[str, Row]) -> Known:
    transfer = study.spec["base"]["transfer_config"]
    weights = (transfer["position_task_weight"], transfer["count_task_weight"])
    scores = {label: objectives(row, weights) for label, row in rows.items()}
    own = [row for row in rows.values() if not row.is_control]
    ranked = sorted(own, key=lambda row: -average(scores[row.label]).value)
    spread = spread_of([scores[row.label] for row in own])
    controls = [row for row in rows.values() if row.is_control]
    return Known(rows["default"], ranked, controls, scores, spread, weights)


# --- comparing ----------------------------------------------------------------------------------


def agrees(cell: Cell, found: Interval, places: int, scale: float = 1.0) -> None:
    assert near(cell, scale * found.value, places), (cell, found)
    assert cell.interval is not None
    for printed, wanted in zip(cell.interval, (found.low, found.high), strict=True):
        assert near(printed, scale * wanted, places), (cell, found)


def agrees_p(cell: Cell, p: float) -> None:
    if p < 0.001:
        assert cell.text.replace("tie, p ", "").replace("below, p ", "").startswith("<0.001")
    else:
        assert near(cell, p, 3), (cell, p)


def holm(p: Sequence[float]) -> list[float]:
    return list(multipletests(p, method="holm")[1])


def table_of(study: Study, name: str) -> Table:
    return study.page.tables[name]


def named(table: Table, column: str = "Configuration") -> dict[str, list[Cell]]:
    place = table.heads.index(column)
    return {row[place].text: row for row in table.rows}


# --- table by table -----------------------------------------------------------------------------


def test_ranking(study: Study, known: Known) -> None:
    table = table_of(study, "ranking")
    assert [row[1].text for row in table.rows] == [row.label for row in known.ranked]
    base = known.objectives["default"]
    others = [row for row in known.ranked if row.label != "default"]
    apart = {r.label: difference(known.objectives[r.label], base, known.spread) for r in others}
    p_default = dict(zip(apart, holm([d.p for d in apart.values()]), strict=True))
    best = known.objectives[known.ranked[0].label]
    behind = [difference(best, known.objectives[r.label], known.spread) for r in known.ranked[1:]]
    p_best = holm([d.p for d in behind])
    for place, (cells, row) in enumerate(zip(table.rows, known.ranked, strict=True)):
        assert cells[0].text == str(place + 1)
        assert cells[2].text == str(len(row.after))
        agrees(cells[3], estimate(known.objectives[row.label], known.spread), 3)
        if row.label == "default":
            assert cells[4].text == "the default"
            assert cells[5].text == NONE
        else:
            agrees(cells[4], apart[row.label], 3)
            agrees_p(cells[5], p_default[row.label])
            wins = p_default[row.label] < 0.05 and apart[row.label].value > 0
            assert ("beats the default" in cells[5].text) == wins
        if place:
            agrees_p(cells[6], p_best[place - 1])
            assert cells[6].text.startswith("tie" if p_best[place - 1] >= 0.05 else "below")
        else:
            assert cells[6].text == "first"
        for cell, task in zip(cells[7:], TASKS, strict=True):
            agrees(cell, estimate(gains(row, task), known.spread_in(task)), 1, 100)


def test_front(fast_path: Path) -> None:
    space = {
        "strategy": "bayesian",
        "num_trials": 6,
        "objectives": ["spelling", "transfer"],
        "HPARAM_CANDIDATES": {"lora_r": [4, 8, 32], "lora_alpha": [16, 64]},
    }
    spec = StudySpec(
        name="front",
        space=SearchSpace.model_validate(space),
        base=build(small_mapping(), "test"),
    )
    root, sizes = ResultsRoot(fast_path), {"num_words": 60, "num_monitor_words": 9}
    some = always(Effect(spelling=0.2, position=0.1))
    write_planted_study(root, spec, some, num_generated_items=30, exact_intervals=False, **sizes)
    page = Page(report.render(analyze(root, "front"), {}))
    table = page.tables["front"]
    points = {
        label: (
            average(gains(row, "spelling")).value,
            float(np.mean([average(gains(row, task)).value for task in TRANSFER])),
        )
        for label, row in rows_of(study_of(fast_path, "front", page)).items()
    }
    best = {
        label
        for label, point in points.items()
        if not any(np.all(np.array(o) >= point) and o != point for o in points.values())
    }
    assert set(named(table)) == best
    for cells in table.rows:
        printed = [float(x.replace("\N{MINUS SIGN}", "-")) for x in cells[2].text.split(", ")]
        assert printed == pytest.approx(points[cells[0].text], abs=6e-5)
    check_marginals(page.tables["marginals"], rows_of(study_of(fast_path, "front", page)))
    for cells in page.tables["influences"].rows:
        assert cells[2].number == len(points)
        assert "no number" in cells[3].text


def check_marginals(table: Table, rows: dict[str, Row]) -> None:
    tried = pd.DataFrame(
        [
            {
                "lora_r": 16,
                "lora_alpha": 32,
                **row.records[0]["parameters"],
                **{task: average(gains(row, task)).value for task in TASKS},
                "objective": average(objectives(row, (0.5, 0.5))).value,
            }
            for row in rows.values()
        ]
    )
    assert len(table.rows) >= 4 * 5
    for cells in table.rows:
        target, parameter, value = (cell.text for cell in cells[:3])
        found = tried.loc[tried[parameter] == int(value), target]
        assert cells[3].number == len(found)
        scale, places = (1, 3) if target == "objective" else (100, 1)
        if len(found) == 1:
            assert near(cells[4], scale * found.mean(), places)
            continue
        ends = stats.t.interval(0.95, len(found) - 1, found.mean(), stats.sem(found))
        agrees(cells[4], Interval(found.mean(), *ends), places, scale)


def test_confirmation(study: Study, known: Known) -> None:
    table = table_of(study, "confirmation")
    fresh_study = study_of(study.folder, "planted_confirm", study.page)
    fresh = known_of(fresh_study, rows_of(fresh_study))
    assert {r["seed"] for r in fresh_study.records}.isdisjoint(r["seed"] for r in study.records)
    again = {row.label: row for row in fresh.ranked}
    assert [cells[0].text for cells in table.rows] == [
        row.label for row in known.ranked if row.label in again
    ]
    for cells in table.rows:
        label = cells[0].text
        chosen = estimate(known.objectives[label], known.spread)
        found = estimate(fresh.objectives[label], fresh.spread)
        assert cells[1].number == len(again[label].after)
        agrees(cells[2], chosen, 3)
        agrees(cells[3], found, 3)
        assert near(cells[4], chosen.value - found.value, 3)
        for cell, of in ((cells[5], known), (cells[6], fresh)):
            if label == "default":
                assert cell.text == NONE
            else:
                scores = of.objectives[label], of.objectives["default"]
                agrees(cell, difference(*scores, of.spread), 3)
        for cell, task in zip(cells[7:], TASKS, strict=True):
            agrees(cell, estimate(gains(again[label], task), fresh.spread_in(task)), 1, 100)


def test_seeds(study: Study, known: Known) -> None:
    table = named(table_of(study, "seeds"), "Of")
    assert known.spread
    assert near(table["objective"][1], np.sqrt(known.spread.total), 4)
    for task in TASKS:
        deviation = np.std([g.value for g in gains(known.default, task)], ddof=1)
        assert near(table[f"strict accuracy in {task}"][1], 100 * deviation, 2)


def curve_at(study: Study, record: Mapping[str, Any], examples: int, size: int) -> dict[str, float]:
    path = study.folder / "data/trainings" / record["result"]["training_key"] / "progress.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [
        x for x in lines if x["kind"] == "evaluation" and x["step"] <= record["result"]["step"]
    ]
    steps = [x["step"] * size for x in lines]
    return {
        task: float(np.interp(examples, steps, [x[f"{PREFIX[task]}/accuracy"] for x in lines]))
        for task in TASKS
    }


def sizes_of(study: Study, row: Row) -> tuple[int, int]:
    """Return steps, and examples of a step, of a configuration that names no batch size."""
    training = study.spec["base"]["training_config"]
    size = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    return row.records[0]["parameters"].get("max_steps", training["max_steps"]), size


def test_equal_examples(study: Study, known: Known) -> None:
    table = table_of(study, "equal")
    budget = min(np.prod(sizes_of(study, row)) for row in known.ranked)
    assert f"{budget:,}" in table.caption
    scores = {}
    for row in known.ranked:
        levels = [curve_at(study, r, budget, sizes_of(study, row)[1]) for r in row.records]
        scores[row.label] = [
            known.weights[0] * x["position"]
            + known.weights[1] * x["count"]
            + 0.2 * min(x["spelling"], (x["position"] + x["count"]) / 2)
            for x in levels
        ]
    order = sorted(scores, key=lambda label: -np.mean(scores[label]))
    found = [cells[1].text for cells in table.rows]
    assert [np.mean(scores[label]) for label in found] == pytest.approx(
        [np.mean(scores[label]) for label in order]
    )
    ranks = {row.label: place for place, row in enumerate(known.ranked, 1)}
    for place, cells in enumerate(table.rows, 1):
        values = scores[cells[1].text]
        assert cells[0].number == place
        assert cells[2].number == len(values)
        assert near(cells[3], np.mean(values), 3)
        assert cells[4].number == ranks[cells[1].text]
        if len(values) > 1:
            low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
            assert cells[3].interval is not None
            assert near(cells[3].interval[0], low, 3)
            assert near(cells[3].interval[1], high, 3)
        else:
            assert cells[3].interval is None


def test_correlations(study: Study, known: Known) -> None:
    table = table_of(study, "correlations")
    longest: dict[str, tuple[int, dict[str, float]]] = {}
    for row in known.ranked:
        for seed, record in enumerate(row.records):
            point = {task: gains(row, task)[seed].value for task in TASKS}
            key, step = record["result"]["training_key"], record["result"]["step"]
            if key not in longest or longest[key][0] < step:
                longest[key] = (step, point)
    points = pd.DataFrame([point for _, point in longest.values()])
    for cells in table.rows:
        task, is_ranks = cells[0].text, cells[1].text.startswith("Spearman")
        x, y, n = points["spelling"], points[task], len(points)
        assert cells[2].number == n
        if is_ranks:
            r, width = np.corrcoef(x.rank(), y.rank())[0, 1], None
            width = np.sqrt((1 + r**2 / 2) / (n - 3))
        else:
            r = np.corrcoef(x, y)[0, 1]
            width = 1 / np.sqrt(n - 3)
        ends = np.tanh(np.arctanh(r) + np.array([-1, 1]) * stats.norm.ppf(0.975) * width)
        t = r * np.sqrt((n - 2) / (1 - r**2))
        agrees(cells[3], Interval(r, *ends), 2)
        agrees_p(cells[4], 2 * stats.t.sf(abs(t), n - 2))
        critical = stats.t.ppf(0.975, n - 2)
        assert near(cells[5], critical / np.sqrt(n - 2 + critical**2), 2)
        assert (cells[6].text == "no relation shown") == (2 * stats.t.sf(abs(t), n - 2) >= 0.05)
    (said,) = re.findall(r"as a standard deviation in points: (.*?)\. Where", study.page.text)
    for task, told in zip(TASKS, said.split("; "), strict=True):
        assert told.startswith(f"{task} {100 * points[task].std(ddof=1):.1f}")


Fraction = tuple[Sequence[Number], Sequence[Number]]


def ratio(own: Fraction, lender: Fraction) -> Interval:
    above, below = (average(side) for side in own)
    value = above.value / below.value
    less, lent = (
        [a.plus(b, -value) for a, b in zip(*sides, strict=True)] for sides in (own, lender)
    )
    return around(value, estimate(less, spread_of([lent])), below.value)


def around(value: float, rest: Interval, size: float) -> Interval:
    half = (rest.high - rest.low) / 2 / abs(size)
    return Interval(value, value - half, value + half)


def normalized(row: Row, task: str, base: Row) -> Fraction:
    sides = (over_room(gains(row, name), base_of(base, name)) for name in (task, "spelling"))
    return tuple(sides)  # type: ignore[return-value]


def over_room(runs: Sequence[Number], base: Number) -> list[Number]:
    """Return normalized gains: gain / (1 - before), with what words add to both."""
    room = 1 - base.value
    return [
        Number(
            r.value / room,
            r.words.add(r.value / room * base.words, fill_value=0) / room,
            max(r.count, base.count),
        )
        for r in runs
    ]


def test_efficiency(study: Study, known: Known, rows: dict[str, Row]) -> None:
    table = table_of(study, "efficiency")
    tests = [
        estimate(gains(row, task), known.spread_in(task)).p
        for row in known.ranked
        for task in TRANSFER
    ]
    q = iter(stats.false_discovery_control(tests))
    for cells, row in zip(table.rows, known.ranked, strict=True):
        assert cells[0].text == row.label
        for place, task in enumerate(TRANSFER):
            reading, q_cell, te, pgr = cells[1 + 4 * place : 5 + 4 * place]
            q_value = next(q)
            wanted = reading_of(row, task, known, rows)
            if wanted == "transfer" and row.label != "default" and q_value >= 0.05:
                wanted = "better, but not when corrected for the number of configurations"
            assert reading.text == wanted
            agrees_p(q_cell, q_value)
            spelling = estimate(gains(row, "spelling"), known.spread_in("spelling"))
            if spelling.low > 0 or spelling.high < 0:
                own, lender = (normalized(x, task, row) for x in (row, known.default))
                agrees(te, ratio(own, lender), 2)
            else:
                assert te.text.startswith("undefined: the spelling gain")
            direct = gains(rows["arm=direct"], task)
            ceiling = estimate(direct, known.spread_in(task))
            if ceiling.low > 0:
                share = average(gains(row, task)).value / ceiling.value
                spread = spread_of([gains(row, task), direct]) or known.spread_in(task)
                rest = difference(gains(row, task), direct, spread, share)
                agrees(pgr, around(share, rest, ceiling.value), 2)
            else:
                assert pgr.text.startswith("undefined: the direct arm's gain")


def reading_of(row: Row, task: str, known: Known, rows: dict[str, Row]) -> str:
    strict = estimate(gains(row, task), known.spread_in(task))
    choice = estimate(gains(row, task, CHOICE), known.spread_in(task, CHOICE))
    if strict.high < 0:
        return "worse" if choice.high < 0 else "worse in format only"
    if strict.low <= 0:
        return "no measurable change"
    if row.label == "arm=direct":
        return "learned"
    if choice.low <= 0:
        return "better in format only"
    levels = [base_of(row, task, CHOICE).plus(g) for g in gains(row, task, CHOICE)]
    baseline = row.records[0]["result"]["tasks"][task]["baseline"]
    if estimate(levels, known.spread_in(task, CHOICE)).low <= baseline:
        return "better, but no better than guessing without the word"
    control = gains(rows["arm=format_control"], task)
    spread = spread_of([gains(row, task), control]) or known.spread_in(task)
    if difference(gains(row, task), control, spread).low <= 0:
        return "better, but not measurably more than the format control"
    return "transfer"


def test_readings(study: Study, known: Known, rows: dict[str, Row]) -> None:
    table = table_of(study, "readings")
    shown = {known.default.label, known.ranked[0].label}
    assert {cells[0].text for cells in table.rows} == shown
    assert len(table.rows) == len(shown) * 8
    for cells in table.rows:
        row, task = rows[cells[0].text], cells[1].text
        column = f"{cells[2].text}_correct"
        values = readings(row.before, task, column).dropna()
        found = estimate(gains(row, task, column), known.spread_in(task, column))
        assert near(cells[3], 100 * values.mean(), 1)
        agrees(cells[5], found, 1, 100)
        assert cells[6].number == len(values)
        assert cells[7].number == row.before.loc[values.index, "word"].nunique()
        baseline = row.records[0]["result"]["tasks"][task]["baseline"]
        after = values.mean() + found.value
        if column == LENIENT:
            assert {cell.text for cell in cells[8:]} == {NONE}
            continue
        assert near(cells[4], 100 * after, 1)
        assert near(cells[8], 100 * baseline, 1)
        if column == CHOICE:
            levels = [base_of(row, task, CHOICE).plus(g) for g in gains(row, task, CHOICE)]
            agrees(cells[4], estimate(levels, known.spread_in(task, CHOICE)), 1, 100)
            continue
        assert near(cells[9], (values.mean() - baseline) / (1 - baseline), 2)
        assert near(cells[10], (after - baseline) / (1 - baseline), 2)
        assert near(cells[11], 100 * found.detectable, 1)


def test_relations(study: Study, known: Known, rows: dict[str, Row]) -> None:
    table = table_of(study, "relations")
    for cells in table.rows:
        label, task = cells[0].text, cells[1].text
        frames = [known.default.before] if label == "untouched" else rows[label].after
        spelled, asked = {}, {}
        for target, name in ((spelled, "spelling"), (asked, task)):
            joined = pd.concat([f[f["task"] == name] for f in frames])
            target.update(joined.groupby("word")[STRICT].mean())
        tokens = dict(zip(frames[0]["word"], frames[0]["num_tokens"], strict=True))
        words = sorted(spelled.keys() & asked.keys())
        kinds = {w: spelled[w] > 0.5 for w in words}
        assert cells[2].number == sum(kinds.values())
        assert cells[3].number == len(words) - sum(kinds.values())
        if cells[4].text.startswith("undefined"):
            assert min(cells[2].number, cells[3].number) < 10
            continue
        for cell, kind in ((cells[4], True), (cells[5], False)):
            assert near(cell, 100 * np.mean([asked[w] for w in words if kinds[w] == kind]), 1)
        groups: dict[tuple[int, int], dict[bool, list[float]]] = {}
        for w in words:
            both = groups.setdefault((len(w), tokens[w]), {True: [], False: []})
            both[bool(kinds[w])].append(asked[w])
        squares = sum(np.var(x) * len(x) for g in groups.values() for x in g.values() if x)
        num_kinds = sum(bool(x) for g in groups.values() for x in g.values())
        variance = squares / (len(words) - num_kinds)
        full = [g for g in groups.values() if g[True] and g[False]]
        sizes = np.array([(len(g[True]), len(g[False])) for g in full], dtype=float)
        weight = sizes.prod(1) / sizes.sum(1)
        apart = np.array([np.mean(g[True]) - np.mean(g[False]) for g in full])
        value = (weight * apart).sum() / weight.sum()
        error = np.sqrt((weight**2 * variance * (1 / sizes).sum(1)).sum()) / weight.sum()
        half = stats.norm.ppf(0.975) * error
        agrees(cells[6], Interval(value, value - half, value + half), 1, 100)
        assert cells[7].number == len(full)


def clustered(values: Series, words: Series) -> Interval:
    """Return a normal interval over words; the page has a bootstrap, so it is only near."""
    number = mean_of(values, words)
    half = 1.96 * np.sqrt(of_words(number))
    return Interval(number.value, number.value - half, number.value + half)


def is_about(cell: Cell, found: Interval) -> None:
    assert near(cell, 100 * found.value, 1)
    assert cell.interval is not None
    assert cell.interval == pytest.approx((100 * found.low, 100 * found.high), abs=1.5)


def test_tasks(study: Study, known: Known) -> None:
    table = table_of(study, "tasks")
    for cells, task in zip(table.rows, TASKS, strict=True):
        assert cells[0].text == task
        for cell, reading in zip(cells[1:4], (STRICT, CHOICE, LENIENT), strict=True):
            values = readings(known.default.before, task, reading).dropna()
            if values.empty:
                assert cell.text == NONE
            else:
                is_about(cell, clustered(values, known.default.before.loc[values.index, "word"]))
        rows = known.default.before[known.default.before["task"] == task]
        assert near(
            cells[4], 100 * known.default.records[0]["result"]["tasks"][task]["baseline"], 1
        )
        assert cells[5].number == len(rows)
        assert cells[6].number == rows["word"].nunique()
        assert cells[7].number == rows[LENIENT].notna().sum()


def test_arms(study: Study, known: Known, rows: dict[str, Row]) -> None:
    table = table_of(study, "arms").by_first()
    assert set(table) == {"untouched", "default", *(row.label for row in known.controls)}
    for place, task in enumerate(TASKS):
        values = readings(known.default.before, task, STRICT)
        words = known.default.before.loc[values.index, "word"]
        is_about(table["untouched"][2 + 2 * place], clustered(values, words))
    for row in (known.default, *known.controls):
        cells = table[row.label]
        assert cells[1].number == len(row.after)
        for place, task in enumerate(TASKS):
            found = estimate(gains(row, task), known.spread_in(task))
            assert near(cells[2 + 2 * place], 100 * (base_of(row, task).value + found.value), 1)
            agrees(cells[3 + 2 * place], found, 1, 100)
        assert [c.text for c in cells[8:]] == [reading_of(row, t, known, rows) for t in TRANSFER]


def test_gains_above_the_control(study: Study, known: Known, rows: dict[str, Row]) -> None:
    table = table_of(study, "over-control").by_first()
    control = rows["arm=format_control"]
    arms = [row for row in (known.default, *known.controls) if row is not control]
    assert set(table) == {row.label for row in arms}
    for row in arms:
        for place, task in enumerate(TASKS):
            pair = gains(row, task), gains(control, task)
            spread = spread_of(pair) or known.spread_in(task)
            agrees(table[row.label][2 + place], difference(*pair, spread), 1, 100)


def test_effects(study: Study, known: Known) -> None:
    table = table_of(study, "effects")
    varied = [row for row in known.ranked if row.label != "default"]
    found, order = {}, []
    for row in varied:
        for task in TASKS:
            spread = known.spread_in(task)
            found[row.label, task] = difference(
                gains(row, task), gains(known.default, task), spread
            )
        scores = known.objectives[row.label], known.objectives["default"]
        found[row.label, "objective"] = difference(*scores, known.spread)
        order += [(row.label, target) for target in (*TASKS, "objective")]
    q = dict(zip(order, stats.false_discovery_control([found[k].p for k in order]), strict=True))
    assert len(table.rows) == len(varied)
    for cells in table.rows:
        label = f"{cells[0].text}={cells[1].text}"
        for place, target in enumerate((*TASKS, "objective")):
            value, q_cell = cells[2 + 2 * place : 4 + 2 * place]
            is_score = target == "objective"
            agrees(value, found[label, target], *((3, 1.0) if is_score else (1, 100.0)))
            agrees_p(q_cell, q[label, target])
            assert ("told apart" in q_cell.text) == (q[label, target] < 0.05)


COLUMNS = {
    "difficulty": "band",
    "place, or length of word": "stratum",
    "template": "template",
    "tokens of the word": "num_tokens",
    "letters of the token that holds the letter": "letter_token_length",
    "position": "n",
    "made-up word": "is_pseudo_word",
    "tokens of the word seen in training": "seen_tokens",
    "letter": "letter",
}


def test_strata(study: Study, known: Known, rows: dict[str, Row]) -> None:
    names = [name for name in study.page.tables if name.startswith("strata-")]
    assert len(names) == 3 * len({known.default.label, known.ranked[0].label})
    for name in names:
        table = table_of(study, name)
        task, label = table.caption.removeprefix("Strata of ").split(", ", 1)
        row = rows[label]
        for cells in table.rows:
            column = COLUMNS[cells[0].text]
            of_task = row.after[0][row.after[0]["task"] == task]
            places = of_task.index[of_task[column].astype(str) == cells[1].text]
            assert cells[2].number == len(places)
            assert cells[3].number == of_task.loc[places, "word"].nunique()
            before = row.before.loc[places, STRICT].astype(float)
            after = [frame.loc[places, STRICT].astype(float) for frame in row.after]
            assert near(cells[4], 100 * before.mean(), 1)
            assert near(cells[5], 100 * np.mean([x.mean() for x in after]), 1)
            for cell, reading in ((cells[6], STRICT), (cells[7], CHOICE)):
                old = row.before.loc[places, reading].astype(float)
                if old.isna().any():
                    assert cell.text == NONE
                    continue
                runs = [
                    mean_of(f.loc[places, reading].astype(float) - old, f.loc[places, "word"])
                    for f in row.after
                ]
                changed = any((run.words != 0).any() or run.value for run in runs)
                if changed:
                    agrees(cell, estimate(runs, known.spread_in(task, reading)), 1, 100)
                else:
                    assert cell.number == 0


def test_confusion(study: Study, known: Known, rows: dict[str, Row]) -> None:
    names = [name for name in study.page.tables if name.startswith("confusion-")]
    assert len(names) == 1 + len({known.default.label, known.ranked[0].label})
    for name in names:
        table = table_of(study, name)
        label = table.caption.split("true count, ")[1].split(": likeliest")[0]
        frames = [known.default.before] if label == "untouched" else rows[label].after
        counts = pd.concat([f[f["task"] == "count"] for f in frames])
        truth = counts["gold"].astype(int).clip(upper=3)
        answer = counts["choice"].astype(int).clip(upper=4)
        for cells in table.rows:
            mine = truth == int(cells[0].text[0])
            assert cells[-1].number == mine.sum() / len(frames)
            for head, cell in zip(table.heads[1:-1], cells[1:-1], strict=True):
                digit = int(head.removeprefix("Answers ")[0])
                assert near(cell, 100 * (answer[mine] == digit).mean(), 1)


def test_retention(study: Study, known: Known) -> None:
    table = table_of(study, "retention")
    assert len(table.rows) == 2 * len([*known.ranked, *known.controls])
    rows = {row.label: row for row in (*known.ranked, *known.controls)}
    for cells in table.rows:
        drifts = [r["result"]["retention"][cells[1].text] for r in rows[cells[0].text].records]
        for cell, name, places in zip(
            cells[2:], ("base_loss", "tuned_loss", "kl_divergence"), (3, 3, 4), strict=False
        ):
            assert near(cell, np.mean([d[name] for d in drifts]), places)
        assert cells[5].number == drifts[0]["num_tokens"]


def test_costs(study: Study, known: Known) -> None:
    table = table_of(study, "costs")
    rows = {row.label: row for row in known.ranked}
    assert set(named(table)) == set(rows)
    per_example = []
    for cells in table.rows:
        row = rows[cells[0].text]
        steps, size = sizes_of(study, row)
        seconds = max(r["execution"]["train_seconds"] for r in row.records)
        gain = 100 * np.mean([average(gains(row, task)).value for task in TRANSFER])
        per_example.append(gain / (steps * size) * 1000)
        assert cells[1].number == steps * size
        assert near(cells[2], seconds / 60, 2)
        assert near(cells[3], gain, 1)
        assert near(cells[4], per_example[-1], 3)
        assert near(cells[5], gain / seconds * 60, 2)
        speeds = [
            r["execution"]["num_trained_tokens"] / r["execution"]["train_seconds"]
            for r in row.records
        ]
        assert near(cells[6], np.mean(speeds), 0)
        memory = [r["execution"]["peak_memory_bytes"] / 2**20 for r in row.records]
        assert near(cells[7], np.mean(memory), 0)
    assert per_example == sorted(per_example, reverse=True)


def test_trials(study: Study, known: Known, rows: dict[str, Row]) -> None:
    table = table_of(study, "trials")
    assert [cells[0].text for cells in table.rows] == [r["trial_id"] for r in study.records]
    for cells, record in zip(table.rows, study.records, strict=True):
        result, execution = record["result"], record["execution"]
        label = label_of(record["parameters"])
        assert cells[1].text == label
        assert cells[2].number == record["seed"]
        assert cells[3].text == result["status"].replace("pruned", "stopped early")
        _, size = sizes_of(study, known.default)
        assert [c.number for c in cells[14:16]] == [result["step"], result["step"] * size]
        assert near(cells[16], execution["train_seconds"], 1)
        assert near(cells[17], execution["evaluation_seconds"], 1)
        if result["status"] != "completed":
            assert {cell.text for cell in cells[4:14]} == {NONE}
            assert (result["reason"] or result["error"]) in cells[18].text
            continue
        row = rows[label]
        seed = [r["trial_id"] for r in row.records].index(record["trial_id"])
        assert near(cells[4], known.objectives[label][seed].value, 4)
        for place, task in enumerate(TASKS):
            gain = gains(row, task)[seed].value
            assert near(cells[5 + 2 * place], 100 * (base_of(row, task).value + gain), 1)
            assert near(cells[6 + 2 * place], 100 * gain, 1)
        for cell, task in zip(cells[11:13], TRANSFER, strict=True):
            assert near(cell, 100 * gains(row, task, CHOICE)[seed].value, 1)
        assert near(cells[13], known.objectives[label][seed].value, 4)


def test_ended(study: Study) -> None:
    table = table_of(study, "ended")
    ended = [r for r in study.records if r["result"]["status"] != "completed"]
    for cells, record in zip(table.rows, ended, strict=True):
        assert cells[0].text == record["trial_id"]
        assert cells[2].number == record["seed"]
        assert cells[4].number == record["result"]["step"]


def test_families(study: Study, known: Known) -> None:
    table = {row[0].text: row[1].number for row in table_of(study, "families").rows}
    tables = study.page.tables
    num = len(known.ranked)
    strata = [t for name, t in tables.items() if name.startswith("strata-")]
    assert table == {
        "default against untouched, position and count": 2,
        "configurations against the default": num - 1,
        "configurations against the best": num - 1,
        "gains in position and count, all configurations": 2 * num,
        "effects of single settings": 4 * len(tables["effects"].rows),
        "correlations across runs": 4,
        "relations across words": sum(
            not row[4].text.startswith("undefined") for row in tables["relations"].rows
        ),
        "strata, strict and choice": sum(
            1 + (row[7].interval is not None) for t in strata for row in t.rows
        ),
    }


def test_provenance(study: Study) -> None:
    table = {row[0].text: row[1].text for row in table_of(study, "provenance").rows}
    completed = [r for r in study.records if r["result"]["status"] == "completed"]
    seconds = [r["execution"]["train_seconds"] for r in study.records]
    wasted = [r["execution"]["train_seconds"] for r in study.records if r not in completed]
    assert int(table["trainings"]) == len({r["result"]["training_key"] for r in completed})
    assert float(table["training minutes"]) == pytest.approx(sum(seconds) / 60, abs=0.006)
    assert float(table["minutes of trials that failed or were stopped"]) == pytest.approx(
        sum(wasted) / 60, abs=0.006
    )
    tokens = sum(r["execution"]["num_trained_tokens"] for r in completed)
    assert int(table["trained tokens"]) == tokens
    decoded = sum(r["result"]["num_decoded"] for r in completed)
    assert int(table["answers decoded freely"]) == decoded
    memory = max(r["execution"]["peak_memory_bytes"] for r in completed) // 2**20
    assert int(table["peak memory, MiB"]) == memory


def test_settings_of_the_default(study: Study) -> None:
    text = {row[0].text: row[1].text for row in table_of(study, "default").rows}
    for section, settings in study.spec["base"].items():
        for name in settings if isinstance(settings, dict) else ():
            assert name in text[section]


def test_tiles_are_those_of_the_default(study: Study, known: Known) -> None:
    tiles = [n for n in study.page.all("div") if n.get("class") == "tile"]
    for tile, task in zip(tiles, TASKS, strict=True):
        said = " ".join("".join(tile.itertext()).split()).replace("\N{MINUS SIGN}", "-")
        found = estimate(gains(known.default, task), known.spread_in(task))
        assert f"{100 * found.value:+.1f} points" in said
        assert f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]" in said
        assert f"{100 * base_of(known.default, task).value:.1f} %" in said


def test_every_table_is_checked(study: Study) -> None:
    """By the names in this file: which tests ran in this process says nothing."""
    text = Path(__file__).read_text("utf-8")
    checked = set(re.findall(r'(?:table_of\(\w+,|startswith\()\s*"([^"]+)"', text))
    missing = {
        name
        for name in study.page.tables
        if not any(name == known or name.startswith(known) for known in checked)
    }
    assert not missing
