"""What winners score on fresh seeds, and on the test split."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis_support import NAME, Planted, copy_of, folder, plant
from planted_study import Effect
from tuning.analysis.confirmation import gains_on_test
from tuning.confirming import confirming
from tuning.mixed_effects import Basis
from tuning.paths import ResultsRoot
from tuning.study import FinalTest
from tuning.transfer_analysis import analyze

SMALL = {"num_words": 40, "num_monitor_words": 6, "num_generated_items": 18}
SPACE = {"HPARAM_CANDIDATES": {"lora_r": [2, 4, 6, 8, 10, 12]}, "replicates_of_default": 3}


def alike(parameters: Mapping[str, Any], seed: int) -> Effect:
    return Effect(spelling=0.2, position=0.05)


@functools.cache
def chosen(seed: int = 0) -> Planted:
    """Return a search in which nothing differs: its winner is lucky."""
    return plant(alike, SPACE, seed=seed, seed_deviation=0.03, **SMALL)


def confirm(study: Planted, num_seeds: int = 3, **options: Any) -> Planted:
    """Train the winner of a study again, in its own folder."""
    fresh = confirming(study.spec, list(study.records.values()), f"{NAME}_confirm", num_seeds, 1)
    fields = {"seed": fresh.seed, "confirms": options.pop("confirms", fresh.confirms)}
    space = fresh.space.model_dump(by_alias=True)
    plant(
        options.pop("effect", alike),
        space,
        root=study.root,
        name=fresh.name,
        fields=fields,
        **SMALL,
        seed_deviation=0.03,
        **options,
    )
    return study._replace(analysis=analyze(study.root, NAME))


@functools.cache
def confirmed_search() -> Planted:
    """Return the search with its winner trained again."""
    root = copy_of(chosen(), Path(tempfile.mkdtemp(dir=folder())))
    return confirm(chosen()._replace(root=root))


@pytest.fixture
def damaged(tmp_path: Path) -> ResultsRoot:
    """Return a copy of the confirmed search, to be damaged."""
    return copy_of(confirmed_search(), tmp_path)


@pytest.fixture
def copied(tmp_path: Path) -> Planted:
    return chosen()._replace(root=copy_of(chosen(), tmp_path))


def test_without_fresh_seeds_there_is_no_confirmation() -> None:
    assert chosen().analysis.confirmation is None
    assert "tuning study confirm planted" in " ".join(chosen().analysis.verdict)


def test_the_winner_and_the_default_stand_beside_what_they_were() -> None:
    study = confirmed_search()
    winner, found = chosen().analysis.configurations[0], study.analysis.confirmation
    assert found is not None
    assert (found.study, found.num_seeds) == (f"{NAME}_confirm", 3)
    assert [c.label for c in found.configurations] == [winner.label, "default"]
    fresh = analyze(study.root, f"{NAME}_confirm")
    for confirmed in found.configurations:
        before = next(r for r in study.analysis.configurations if r.label == confirmed.label)
        after = next(r for r in fresh.configurations if r.label == confirmed.label)
        assert confirmed.chosen == before.objective
        assert confirmed.fresh == after.objective
        assert confirmed.shrinkage == pytest.approx(before.objective.value - after.objective.value)
        assert confirmed.fresh_over_default == after.over_default
        assert confirmed.fresh_row == after
        assert not set(before.seeds) & set(after.seeds), "seeds that chose nothing"
    assert found.configurations[1].fresh_over_default is None
    said = [s for s in study.analysis.verdict if s.startswith("Trained again on 3 fresh seeds")]
    assert len(said) == 2
    assert f"{winner.label} went from {winner.objective.value:.3f} to " in said[0]
    assert "; it did not hold: " in said[0]
    assert "against the default on the same seeds, which cannot be told from nothing." in said[0]
    assert study.analysis.notes == chosen().analysis.notes


def test_a_confirmation_says_itself_whether_its_winner_held() -> None:
    again = analyze(confirmed_search().root, f"{NAME}_confirm")
    label = chosen().analysis.configurations[0].label
    (said,) = (s for s in again.verdict if s.startswith(f"Chosen in study {NAME} and trained"))
    assert f"on fresh seeds, {label}: it did not hold: " in said
    assert not any("tuning study confirm" in s for s in again.verdict), "it is one already"


@pytest.mark.parametrize(
    ("gain", "says"),
    [(0.2, "it held: +"), (-0.2, "it did not hold, and is worse: -"), (0.0, "it did not hold: ")],
)
def test_what_is_better_indeed_holds(copied: Planted, gain: float, says: str) -> None:
    winner = chosen().analysis.configurations[0]

    def indeed(parameters: Mapping[str, Any], seed: int) -> Effect:
        # The default gains itself, so that there is room on both sides.
        return Effect(spelling=0.2, position=0.2 + (gain if parameters else 0.0))

    study = confirm(copied, effect=indeed)
    said = [s for s in study.analysis.verdict if s.startswith("Trained again on 3 fresh seeds")]
    assert f"{winner.label} went from " in said[0]
    assert f"; {says}" in said[0]


def test_a_lucky_winner_shrinks() -> None:
    """The largest of seven equal configurations was too good by chance; the fresh one is not."""
    another = plant(alike, SPACE, seed=1, seed_deviation=0.03, **SMALL)
    shrunk = []
    for study in (confirmed_search(), confirm(another, seed=1)):
        found = study.analysis.confirmation
        assert found is not None
        shrunk.append(found.configurations[0].shrinkage)
    assert np.mean(shrunk) > 0.01


def test_a_study_that_only_has_the_name_confirms_nothing(copied: Planted) -> None:
    study = confirm(copied, confirms="another")
    assert study.analysis.confirmation is None


def test_a_confirmation_is_found_whatever_else_stands_beside_it(damaged: ResultsRoot) -> None:
    """Folders of others: one that is no study of ours, one whose name no study can have."""
    spec = damaged.study(f"{NAME}_confirm").spec
    spec.parent.rename(spec.parents[1] / "once more")
    for name, content in (("other", "a: [1"), ("trials of mine", spec.name)):
        (damaged.data / name).mkdir()
        (damaged.data / name / "study.yaml").write_text(content)
    analysis = analyze(damaged, NAME)
    assert (analysis.confirmation, analysis.notes) == (None, chosen().analysis.notes)
    (spec.parents[1] / "once more").rename(spec.parents[1] / "again")
    confirmation = analyze(damaged, NAME).confirmation
    assert confirmation is not None
    assert confirmation.study == "again"


@pytest.mark.parametrize("content", ["name: planted_confirm\n", "a: [1"])
def test_a_damaged_confirmation_is_a_note(damaged: ResultsRoot, content: str) -> None:
    damaged.study(f"{NAME}_confirm").spec.write_text(content)
    analysis = analyze(damaged, NAME)
    assert analysis.confirmation is None
    assert any("what fresh seeds say is left out" in note for note in analysis.notes)
    assert analysis.configurations == chosen().analysis.configurations


def test_damaged_trials_of_a_confirmation_are_notes(damaged: ResultsRoot) -> None:
    first = sorted(damaged.study(f"{NAME}_confirm").trials.iterdir())[0]
    (first / "record.json").write_text("{}")
    analysis = analyze(damaged, NAME)
    assert analysis.confirmation is not None
    assert any(n.startswith(f"study {NAME}_confirm: trial {first.name}") for n in analysis.notes)


def test_a_confirmation_of_which_nothing_completed_says_nothing(copied: Planted) -> None:
    study = confirm(copied, failed=range(6))
    assert study.analysis.confirmation is None


# --- the test split -----------------------------------------------------------------------------


def test_gains_on_the_test_split_are_over_seeds_and_words() -> None:
    study = chosen()
    row = study.row("default")
    seeds = {t: study.records[t].result.tasks for t in row.trial_ids}
    found = gains_on_test([FinalTest(label="default", parameters={}, seeds=seeds)])
    assert [f.task for f in found] == ["spelling", "position", "count"]
    for one in found:
        wanted = np.mean([tasks[one.task].gain.value for tasks in seeds.values()])
        assert one.gain.value == pytest.approx(wanted)
        assert one.after == pytest.approx(one.before + wanted)
        assert one.gain.basis is Basis.SEEDS
        widths = [tasks[one.task].gain.high - tasks[one.task].gain.low for tasks in seeds.values()]
        assert one.gain.high - one.gain.low > 0.95 * min(widths), "words do not average away"
    assert gains_on_test([]) == []
    assert gains_on_test([FinalTest(label="default", parameters={}, seeds={})]) == []


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '[{"label": "default"}]'])
def test_a_damaged_read_of_the_test_split_is_a_note(copied: Planted, content: str) -> None:
    root: ResultsRoot = copied.root
    root.study(NAME).final_test.write_text(content)
    analysis = analyze(root, NAME)
    assert list(analysis.final_gains) == []
    assert any("what was read of the test split is left out" in n for n in analysis.notes)
