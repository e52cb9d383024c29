"""Strata and answers to counts, derived again from the stored answers by pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis_support import Planted, control, plant
from planted_study import Effect
from tuning.analysis.strata import MIN_WORDS, Stratum, confusion_of, strata_of
from tuning.measures import STRATA
from tuning.statistics import wilson_interval
from tuning.tasks.baselines import baseline
from tuning.tasks.items import EVALUATED_TASKS

COUNTS = ["0", "1", "2", "3+"]


@pytest.fixture(scope="module")
def study() -> Planted:
    return control("speller")


def frames(study: Planted, label: str = "default") -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    trial_ids = study.row(label).trial_ids
    return study.base_answers(trial_ids[0]), [study.answers(t) for t in trial_ids]


def key(stratum: Stratum) -> tuple[str, str, str]:
    return stratum.task, stratum.column, stratum.value


def test_strata_are_those_of_pandas(study: Planted) -> None:
    base, tuned = frames(study)
    wanted = {}
    for task in EVALUATED_TASKS:
        rows = base["task"] == task.value
        for column in (*STRATA, "letter"):
            if column == "letter" and task.value != "count":
                continue
            for value in tuned[0].loc[rows, column].dropna().unique():
                here = rows & (tuned[0][column] == value).fillna(False).astype(bool)
                words = base.loc[here, "word"].nunique()
                if words < MIN_WORDS or here.sum() == rows.sum() or value == "":
                    continue
                before = base.loc[here, "strict_correct"].mean()
                after = np.mean([f.loc[here, "strict_correct"].mean() for f in tuned])
                wanted[task.value, column, str(value)] = (here.sum(), words, before, after)
    found = {key(s): s for s in study.analysis.strata}
    assert set(found) == set(wanted)
    for name, (num_items, num_words, before, after) in wanted.items():
        stratum = found[name]
        assert (stratum.num_items, stratum.num_words) == (num_items, num_words), name
        assert (stratum.before, stratum.after) == pytest.approx((before, after)), name
        assert stratum.gain == pytest.approx(after - before), name
        assert stratum.low <= stratum.gain <= stratum.high, name
        assert (stratum.choice_gain is None) == (name[0] == "spelling")


def test_strata_that_split_a_task_add_up_to_it(study: Planted) -> None:
    for column in ("band", "num_tokens", "template", "is_pseudo_word"):
        parts = [s for s in study.analysis.strata if (s.task, s.column) == ("spelling", column)]
        shown = sum(s.num_items for s in parts)
        whole = study.gain("spelling")
        if shown == whole.num_items:
            gain = sum(s.gain * s.num_items for s in parts) / shown
            assert gain == pytest.approx(whole.gain.value)


def test_each_stratum_stands_against_its_own_baseline(study: Planted) -> None:
    from planted_answers import questions

    base, _ = frames(study)
    asked = questions(150, 90)
    table = asked.table.to_pandas()
    checked = 0
    for stratum in study.analysis.strata:
        if stratum.task == "spelling":
            assert stratum.baseline == 0
        if (stratum.task, stratum.column) not in (("position", "n"), ("count", "stratum")):
            continue
        rows = (base["task"] == stratum.task) & (table[stratum.column].astype(str) == stratum.value)
        items = [asked.items[i] for i in np.flatnonzero(rows)]
        assert stratum.baseline == pytest.approx(baseline(items, asked.guesser))
        checked += 1
    assert checked > 5
    blind = {key(s): s for s in control("word_blind").analysis.strata}
    for name, stratum in blind.items():
        if name[:2] == ("count", "stratum"):
            assert stratum.before <= stratum.baseline + 1e-9  # type: ignore[operator]


def test_a_stratum_without_any_change_is_no_certainty() -> None:
    base, _ = frames(control("speller"))
    same = base.assign(seen_tokens="all")
    found = strata_of("default", base, [same], None, {})
    assert found
    for stratum in found:
        unseen = wilson_interval(0, stratum.num_words).high
        assert (stratum.low, stratum.high) == pytest.approx((-unseen, unseen))
        assert stratum.baseline is None


def test_intervals_of_strata_are_over_the_words_of_the_stratum(study: Planted) -> None:
    """A stratum of few words is less certain than the whole, whose words it cannot borrow."""
    whole = study.gain("spelling").gain
    for stratum in study.analysis.strata:
        if (stratum.task, stratum.column) == ("spelling", "band") and stratum.num_words < 75:
            assert stratum.high - stratum.low > whole.high - whole.low


def test_the_default_and_the_best_are_looked_at_closely_and_no_other() -> None:
    space = {"HPARAM_CANDIDATES": {"lora_r": [4, 32]}, "replicates_of_default": 2}
    study = plant(
        lambda parameters, seed: Effect(
            spelling=0.2, position=0.2 if parameters.get("lora_r") == 32 else 0.0
        ),
        space,
        num_words=60,
    )
    assert study.analysis.configurations[0].label == "lora_r=32"
    assert {s.label for s in study.analysis.strata} == {"default", "lora_r=32"}
    assert {c.label for c in study.analysis.confusion} == {"untouched", "default", "lora_r=32"}


def test_answers_to_counts_are_those_of_pandas(study: Planted) -> None:
    base, tuned = frames(study)
    for label, some in (("untouched", [base]), ("default", tuned)):
        rows = pd.concat(some)
        rows = rows[rows["task"] == "count"]
        true = rows["gold"].replace({str(n): "3+" for n in range(3, 10)})
        answer = rows["choice"].replace({str(n): "4+" for n in range(4, 10)})
        wanted = pd.crosstab(true, answer, normalize="index")
        found = [c for c in study.analysis.confusion if c.label == label]
        assert {c.true for c in found} <= set(COUNTS)
        for cell in found:
            assert cell.share == pytest.approx(wanted.loc[cell.true, cell.answer])
            assert cell.num_items == (true == cell.true).sum() / len(some)
        for name in {c.true for c in found}:
            assert sum(c.share for c in found if c.true == name) == pytest.approx(1)


def test_a_model_that_always_says_one_answers_nothing_else() -> None:
    found = control("word_blind").analysis.confusion
    assert {(c.answer, c.share) for c in found} == {("1", 1.0)}


def test_an_oracle_has_a_diagonal() -> None:
    tuned = [c for c in control("oracle").analysis.confusion if c.label == "default"]
    for cell in tuned:
        is_right = cell.answer == cell.true or (cell.true == "3+" and cell.answer in ("3", "4+"))
        assert cell.share == 0 or is_right


def test_without_choices_there_is_nothing_to_confuse() -> None:
    base, _ = frames(control("speller"))
    assert confusion_of("default", [base[base["task"] == "spelling"]]) == []
