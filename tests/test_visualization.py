"""Figures: their numbers are those of the analysis, and they draw at every size or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import statsmodels.api as sm

from conftest import SMALL
from planted_study import Effect, write_planted_study
from tuning import visualization
from tuning.analysis.influence import Influence
from tuning.analysis.results import StudyAnalysis
from tuning.config import build
from tuning.figures.costs import cost_data, front_data
from tuning.figures.curves import MAX_CURVES, MAX_STEPS, band_data, curves_data
from tuning.figures.figure import evenly, natural, shown
from tuning.figures.gains import gains_data, seeds_data
from tuning.figures.parameters import influence_data, parallel_data, ticks_data
from tuning.figures.relations import fit_data, transfer_data
from tuning.figures.strata import HEADINGS, confusion_data, positions_data, strata_data
from tuning.paths import ResultsRoot
from tuning.search_space import SearchSpace
from tuning.study import OnFront, StudySpec
from tuning.transfer_analysis import analyze
from tuning.visualization import FIGURES, figures, save_figures, specification

ORDER = [
    *("gains", "transfer", "front", "curves", "parallel", "influence"),
    *("strata", "confusion", "positions", "cost", "seeds"),
]
SPACE: dict[str, Any] = {
    "HPARAM_CANDIDATES": {
        "learning_rate": [1e-4, 5e-4, 2e-3],
        "lora_r": [4, 8, 64],
        "max_steps": [8, 20],
        "spelling_difficulty": ["easy", "hard"],
        "target_modules": [["q_proj", "v_proj"]],
        "arm": ["direct", "format_control"],
    },
    "replicates_of_default": 3,
}
HOSTILE = "x=</script><script>alert(1)</script>\"'`\\ ${7*7} datum.gain ]] --> 東"


def effect_of(parameters: Any, seed: int) -> Effect:
    """More spelling with more rank, a third of it in position, and a ceiling."""
    if parameters.get("arm") == "direct":
        return Effect(position=0.3, count=0.25)
    spelling = 0.1 + 0.02 * float(np.log2(parameters.get("lora_r", 16) / 16))
    return Effect(spelling=spelling, position=spelling / 3, count_choice=0.02)


def planted(folder: Path, space: dict[str, Any] = SPACE, **options: Any) -> StudyAnalysis:
    root = ResultsRoot(folder)
    base = build(SMALL, "test")
    spec = StudySpec(name="planted", space=SearchSpace.model_validate(space), base=base)
    sizes = {"num_words": 60, "num_monitor_words": 12, "num_generated_items": 15}
    write_planted_study(
        root, spec, effect_of, exact_intervals=False, **{**sizes, "churn": 0.2, **options}
    )
    return analyze(root, "planted")


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> StudyAnalysis:
    """Return 14 configurations in 16 trials, and two control arms."""
    return planted(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def charts(analysis: StudyAnalysis) -> dict[str, Any]:
    return figures(analysis)


@pytest.fixture(scope="module")
def specifications(charts: dict[str, Any]) -> dict[str, Any]:
    return {name: json.loads(specification(chart)) for name, chart in charts.items()}


def scaled_up(analysis: StudyAnalysis, number: int) -> StudyAnalysis:
    """Return an analysis of so many configurations: copies, with ids and places of their own."""
    originals = analysis.configurations
    by_trial = {trial.trial_id: trial for trial in analysis.trials}
    curves = {curve.trial_id: curve for curve in analysis.curves}
    rows, runs, trials, found_curves, costs = [], [], [], [], []
    rng = np.random.default_rng(0)
    for place in range(number):
        row = originals[place % len(originals)]
        is_default = row.is_default and place < len(originals)
        label = (
            "default" if is_default else f"learning_rate={0.001 + place * 1e-6:g}, lora_r={place}"
        )
        parameters = {} if is_default else {"learning_rate": 0.001 + place * 1e-6, "lora_r": place}
        ids = [f"{place:04}-{trial_id}" for trial_id in row.trial_ids]
        rows.append(
            dataclasses.replace(
                row,
                rank=place + 1,
                label=label,
                parameters=parameters,
                is_default=is_default,
                trial_ids=ids,
                num_examples=row.num_examples + place % 40,
            )
        )
        for new, old in zip(ids, row.trial_ids, strict=True):
            trials.append(dataclasses.replace(by_trial[old], trial_id=new, label=label))
            found_curves.append(dataclasses.replace(curves[old], trial_id=new, label=label))
            gains = rng.normal(0.05, 0.03, 3)
            template = analysis.runs[0]
            runs.append(
                dataclasses.replace(
                    template,
                    trial_id=new,
                    label=label,
                    spelling=gains[0],
                    position=gains[1],
                    count=gains[2],
                )
            )
        costs.append(dataclasses.replace(analysis.costs[0], label=label))
    return dataclasses.replace(
        analysis, configurations=rows, runs=runs, trials=trials, curves=found_curves, costs=costs
    )


@pytest.fixture(scope="module")
def thousand(analysis: StudyAnalysis) -> StudyAnalysis:
    return scaled_up(analysis, 1000)


# --- numbers ------------------------------------------------------------------------------------


def test_figures_stand_in_the_order_of_the_report(charts: dict[str, Any]) -> None:
    # A comparison of vocabularies has a test of its own.
    assert [name for name in FIGURES if name != "vocabularies"] == ORDER
    assert list(charts) == ORDER
    assert all(name == figure.name for name, figure in FIGURES.items())
    assert len({figure.title for figure in FIGURES.values()}) == len(FIGURES)


def test_data_functions_are_pure(analysis: StudyAnalysis) -> None:
    before = dataclasses.asdict(analysis)
    for figure in FIGURES.values():
        assert figure.data(analysis).equals(figure.data(analysis))
    assert dataclasses.asdict(analysis) == before


def test_gains_are_those_of_each_configuration_task_and_reading(analysis: StudyAnalysis) -> None:
    data = gains_data(analysis)
    rows = [*analysis.configurations, *analysis.controls]
    # Spelling has no choice reading: five rows a configuration.
    assert len(data) == 5 * len(rows)
    for row in rows:
        for task, gain in row.gains.items():
            for reading, found in (("strict", gain.gain), ("choice", gain.choice)):
                own = data[
                    (data["configuration"] == row.label)
                    & (data["task"] == task)
                    & (data["reading"] == reading)
                ]
                if found is None:
                    assert own.empty
                    continue
                (drawn,) = own.to_dict("records")
                expected = (100 * found.value, 100 * found.low, 100 * found.high)
                assert (drawn["gain"], drawn["low"], drawn["high"]) == pytest.approx(expected)
                assert drawn["basis"] == found.basis.value
                assert (drawn["seeds"], drawn["items"]) == (row.num_seeds, gain.num_items)
    assert data["name"].nunique() == len(rows)
    assert [name for name in data["name"].unique() if name.startswith("C")] == [
        "C1 arm=direct",
        "C2 arm=format_control",
    ]
    assert any(name.endswith("default (n = 3)") for name in data["name"])


def test_transfer_has_one_point_a_run(analysis: StudyAnalysis) -> None:
    data = transfer_data(analysis).set_index("trial")
    assert len(data) == len(analysis.runs)
    for run in analysis.runs:
        expected = [100 * run.spelling, 100 * run.position, 100 * run.count]
        assert list(data.loc[run.trial_id, ["spelling", "position", "count"]]) == pytest.approx(
            expected
        )
    # Of several budgets of one training the longest is the run, so that a default may be missing.
    assert analysis.default is not None
    assert set(data.index[data["role"] == "default"]) == {
        trial_id for trial_id in analysis.default.trial_ids if trial_id in data.index
    }


@pytest.mark.parametrize("task", ["position", "count"])
def test_the_line_and_its_band_are_those_of_least_squares(
    analysis: StudyAnalysis, task: str
) -> None:
    fit = fit_data(analysis)
    own = fit[fit["task"] == task]
    x = [100 * run.spelling for run in analysis.runs]
    y = [100 * getattr(run, task) for run in analysis.runs]
    model = sm.OLS(y, sm.add_constant(x)).fit()
    expected = model.get_prediction(sm.add_constant(own["spelling"].to_numpy())).summary_frame()
    for name, theirs in (("fit", "mean"), ("low", "mean_ci_lower"), ("high", "mean_ci_upper")):
        np.testing.assert_allclose(own[name], expected[theirs])
    assert (own["spelling"].min(), own["spelling"].max()) == pytest.approx((min(x), max(x)))


def test_there_is_no_line_of_few_or_equal_runs(analysis: StudyAnalysis) -> None:
    few = dataclasses.replace(analysis, runs=analysis.runs[:4])
    equal = [dataclasses.replace(run, spelling=0.1) for run in analysis.runs]
    for changed in (few, dataclasses.replace(analysis, runs=equal)):
        assert fit_data(changed).empty
        assert "No line" in said(FIGURES["transfer"].draw(changed))


def test_the_subtitle_of_transfer_names_r_its_interval_n_and_what_r_must_exceed(
    analysis: StudyAnalysis, charts: dict[str, Any]
) -> None:
    text = said(charts["transfer"]).replace("\N{MINUS SIGN}", "-")
    for found in analysis.correlations:
        assert found.value is not None
        assert f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]" in text
    assert f"n = {len(analysis.runs)}" in text
    assert f"|r| of {analysis.correlations[0].critical:.2f}" in text


def test_the_front_holds_what_no_other_beats(analysis: StudyAnalysis) -> None:
    data = front_data(analysis)
    points = data[["spelling", "transfer"]].to_numpy()
    expected = [
        not any((other >= one).all() and (other > one).any() for other in points) for one in points
    ]
    assert list(data["is_front"]) == expected
    row = analysis.configurations[2]
    gains = [row.gains[task].gain for task in ("position", "count")]
    drawn = data.iloc[2]
    assert drawn["transfer"] == pytest.approx(50 * (gains[0].value + gains[1].value))
    assert drawn["transfer_low"] == pytest.approx(50 * (gains[0].low + gains[1].low))
    assert drawn["spelling_high"] == pytest.approx(100 * row.gains["spelling"].gain.high)


def test_a_study_with_several_objectives_shows_its_own_front(analysis: StudyAnalysis) -> None:
    plain = front_data(analysis)
    beaten = analysis.configurations[int((~plain["is_front"]).to_numpy().argmax())]
    own = dataclasses.replace(analysis, front=[OnFront(beaten.label, beaten.trial_ids, (0.1, 0.2))])
    data = front_data(own)
    assert list(data[data["is_front"]]["configuration"]) == [beaten.label]
    chart = FIGURES["front"].draw(own)
    assert "the study's objectives" in said(chart)
    # A line along it would claim that these two axes are the objectives.
    assert "step-before" not in specification(chart)
    assert "step-before" in specification(FIGURES["front"].draw(analysis))


def test_curves_are_those_of_progress(analysis: StudyAnalysis) -> None:
    data = curves_data(analysis)
    assert data["trial"].nunique() == len(analysis.curves)
    for curve in analysis.curves:
        own = data[data["trial"] == curve.trial_id]
        assert list(own["step"]) == list(curve.steps)
        for task, values in curve.accuracies.items():
            assert list(own[task]) == pytest.approx([100 * value for value in values])
    roles = data.groupby("role")["trial"].nunique()
    assert (roles["default"], roles["best"], roles["control"]) == (3, 1, 2)


def test_a_long_curve_keeps_its_ends(analysis: StudyAnalysis) -> None:
    steps = list(range(0, 400, 4))
    long = dataclasses.replace(
        analysis.curves[0],
        steps=steps,
        examples=steps,
        accuracies={task: [0.5] * 100 for task in analysis.curves[0].accuracies},
    )
    data = curves_data(dataclasses.replace(analysis, curves=[long]))
    assert len(data) == MAX_STEPS
    assert (data["step"].min(), data["step"].max()) == (0, 396)


def test_the_band_of_noise_lies_around_the_untouched_model(analysis: StudyAnalysis) -> None:
    bands = band_data(analysis).set_index("task")
    for summary in analysis.patterns.summaries:
        band = bands.loc[summary.task]
        untouched = 100 * analysis.curves[0].accuracies[summary.task][0]
        assert band["untouched"] == pytest.approx(untouched)
        assert band["high"] - untouched == pytest.approx(100 * summary.noise)
    no_start = [dataclasses.replace(c, steps=[s + 1 for s in c.steps]) for c in analysis.curves]
    without = dataclasses.replace(analysis, curves=no_start)
    assert band_data(without).empty
    assert "shaded" not in said(FIGURES["curves"].draw(without))


def test_parallel_reads_what_is_not_varied_from_the_default(analysis: StudyAnalysis) -> None:
    data = parallel_data(analysis)
    assert set(data["axis"]) == {
        *("learning_rate", "lora_r", "max_steps", "spelling_difficulty", "target_modules"),
        "objective",
    }
    assert data["height"].between(0, 1).all()
    default = data[data["role"] == "default"].set_index("axis")["value"]
    assert (default["lora_r"], default["max_steps"]) == ("16", "12")
    heights = data[data["axis"] == "spelling_difficulty"].set_index("value")["height"]
    assert [set(heights[[band]]) for band in ("easy", "medium", "hard")] == [{0.0}, {0.5}, {1.0}]
    objective = data[data["axis"] == "objective"].sort_values("place")["height"]
    assert list(objective) == sorted(objective, reverse=True)
    ticks = ticks_data(analysis)
    assert list(ticks[ticks["axis"] == "lora_r"]["label"]) == ["4", "8", "16", "64"]


def test_parallel_needs_two_hyperparameters(tmp_path: Path) -> None:
    one = planted(tmp_path, {"HPARAM_CANDIDATES": {"lora_r": [4, 8]}, "replicates_of_default": 1})
    assert parallel_data(one).empty
    assert not FIGURES["parallel"].has_data(one)
    assert FIGURES["influence"].has_data(one)


def test_influence_draws_direct_effects(analysis: StudyAnalysis) -> None:
    data = influence_data(analysis)
    assert set(data["kind"]) == {"effect"}
    assert len(data) == len(analysis.effects)
    for effect, drawn in zip(analysis.effects, data.to_dict("records"), strict=True):
        assert (drawn["parameter"], drawn["target"]) == (effect.parameter, effect.target)
        found = effect.effect
        assert (drawn["effect"], drawn["low"], drawn["high"]) == pytest.approx(
            (100 * found.value, 100 * found.low, 100 * found.high)
        )
        assert drawn["is_clear"] == (found.low > 0 or found.high < 0)
    false = sum(effect.q_value < 0.05 for effect in analysis.effects)
    assert f"{len(analysis.effects)} tests, of which {false} hold" in said(
        FIGURES["influence"].draw(analysis)
    )


def influence(importance: float | None, noise: float | None = 0.05, **other: Any) -> Influence:
    known = {"target": "objective", "parameter": "lora_r", "p_value": 0.01, "reason": None}
    ends = {"low": 0.1, "high": 0.6} if importance is not None else {"low": None, "high": None}
    number = {"num_configurations": 120}
    return Influence(**{**known, **ends, **number, **other}, importance=importance, noise=noise)


def test_influence_draws_the_importances_of_a_search(analysis: StudyAnalysis) -> None:
    found = [
        influence(0.4),
        influence(0.03, parameter="max_steps"),
        influence(None, None, parameter="lora_alpha", reason="too few trials"),
    ]
    search = dataclasses.replace(analysis, effects=[], influences=found)
    data = influence_data(search).set_index("parameter")
    assert list(data.index) == ["lora_r", "max_steps"]
    assert list(data.loc["lora_r", ["effect", "low", "high", "noise"]]) == pytest.approx(
        [40.0, 10.0, 60.0, 5.0]
    )
    assert list(data["is_clear"]) == [True, False]
    chart = FIGURES["influence"].draw(search)
    assert "120 configurations" in said(chart)
    assert "PED-ANOVA" in FIGURES["influence"].caption(search)
    check(chart)


def test_too_few_trials_have_no_influence(analysis: StudyAnalysis) -> None:
    refused = [influence(None, None, reason="too few trials")]
    few = dataclasses.replace(analysis, effects=[], influences=refused)
    assert not FIGURES["influence"].has_data(few)


def test_strata_are_labelled_with_their_gain_and_with_whether_it_may_be_none(
    analysis: StudyAnalysis,
) -> None:
    data = strata_data(analysis)
    expected = [s for s in analysis.strata if s.column in HEADINGS]
    assert len(data) == len(expected)
    assert set(data["configuration"]) == {"default", analysis.configurations[0].label}
    for stratum in expected:
        (drawn,) = data[
            (data["configuration"] == stratum.label)
            & (data["task"] == stratum.task)
            & (data["column"] == stratum.column)
            & (data["value"] == stratum.value)
        ].to_dict("records")
        assert drawn["gain"] == pytest.approx(100 * stratum.gain)
        assert drawn["has_zero"] == (stratum.low <= 0 <= stratum.high)
        assert drawn["has_zero"] == drawn["label"].endswith("○")
        number = float(drawn["label"].strip(" ○").replace("\N{MINUS SIGN}", "-"))
        assert number == pytest.approx(100 * stratum.gain, abs=0.051)
    bands = data[data["column"] == "band"]["value"].drop_duplicates()
    assert list(bands) == ["easy", "medium", "hard"]


def test_confusion_has_every_answer_and_rows_of_100_percent(analysis: StudyAnalysis) -> None:
    data = confusion_data(analysis)
    assert list(data["configuration"].unique())[0] == "untouched"
    assert np.allclose(data.groupby(["configuration", "true"])["share"].sum(), 100)
    shares = {(c.label, c.true, c.answer): 100 * c.share for c in analysis.confusion}
    for drawn in data.to_dict("records"):
        key = (drawn["configuration"], drawn["true"], drawn["answer"])
        assert drawn["share"] == pytest.approx(shares.get(key, 0.0))
    answers = data.groupby("configuration")["answer"].apply(lambda column: set(column))
    assert len({frozenset(found) for found in answers}) == 1
    assert set(data[data["is_right"]]["answer"]) <= {"0", "1", "2", "3", "4+"}


def test_an_answer_that_only_one_model_gives_is_0_for_the_others(analysis: StudyAnalysis) -> None:
    kept = [c for c in analysis.confusion if c.label != "untouched" or c.answer != "3"]
    data = confusion_data(dataclasses.replace(analysis, confusion=kept))
    untouched = data[(data["configuration"] == "untouched") & (data["answer"] == "3")]
    assert set(untouched["label"]) == {"0 %"}


def test_positions_show_before_after_and_a_guess(analysis: StudyAnalysis) -> None:
    data = positions_data(analysis)
    found = [s for s in analysis.strata if s.column == "n" and s.task == "position"]
    assert len(data) == 3 * len(found)
    for stratum in found:
        own = data[(data["configuration"] == stratum.label) & (data["n"] == int(stratum.value))]
        by_kind = own.set_index("kind")["accuracy"]
        assert stratum.baseline is not None
        expected = [100 * stratum.before, 100 * stratum.after, 100 * stratum.baseline]
        assert list(by_kind[["untouched", "tuned", "word-blind guess"]]) == pytest.approx(expected)
    assert data["low"].min() >= 0
    assert data["high"].max() <= 100
    without = [dataclasses.replace(stratum, baseline=None) for stratum in analysis.strata]
    unknown = dataclasses.replace(analysis, strata=without)
    assert set(positions_data(unknown)["kind"]) == {"untouched", "tuned"}
    check(FIGURES["positions"].draw(unknown))


def test_cost_weighs_examples_against_gains(analysis: StudyAnalysis) -> None:
    data = cost_data(analysis)
    assert list(data["examples"]) == [row.num_examples for row in analysis.configurations]
    costs = {cost.label: cost for cost in analysis.costs}
    for drawn in data.to_dict("records"):
        cost = costs[drawn["configuration"]]
        assert drawn["transfer"] == pytest.approx(100 * cost.transfer_gain)
        assert drawn["per_1000"] == pytest.approx(cost.points_per_1000_examples)
    equal = [dataclasses.replace(row, num_examples=96) for row in analysis.configurations]
    assert cost_data(dataclasses.replace(analysis, configurations=equal)).empty


def test_seeds_show_every_run_of_what_was_repeated(analysis: StudyAnalysis) -> None:
    data = seeds_data(analysis)
    default = analysis.default
    assert default is not None
    assert set(data["configuration"]) == {"default"}
    gains = {trial.trial_id: trial.gain for trial in analysis.trials}
    for task, gain in default.gains.items():
        own = data[data["task"] == task]
        dots = own[own["kind"] == "seed"]
        assert list(dots["seed"]) == list(default.seeds)
        expected = [100 * gains[trial_id][task] for trial_id in default.trial_ids]
        assert list(dots["gain"]) == pytest.approx(expected)
        (mean,) = own[own["kind"] == "mean"].to_dict("records")
        assert (mean["gain"], mean["low"]) == pytest.approx(
            (100 * gain.gain.value, 100 * gain.gain.low)
        )


# --- what to show -------------------------------------------------------------------------------


def test_what_is_shown_of_many_is_said(analysis: StudyAnalysis) -> None:
    rows = [
        dataclasses.replace(row, rank=place, is_default=place == 40)
        for place, row in enumerate(list(analysis.configurations) * 10, start=1)
    ]
    found = shown(rows)
    assert [row.rank for row in found.rows] == [*range(1, 30), 40]
    number = f"30 of {len(rows)}"
    assert found.says.startswith(number)
    assert found.says.endswith("and the default.")
    assert shown(rows[:20]).says == ""
    assert "default" not in shown([dataclasses.replace(r, is_default=False) for r in rows]).says


def test_evenly_keeps_both_ends() -> None:
    assert evenly(5, 10) == [0, 1, 2, 3, 4]
    assert evenly(1000, 4) == [0, 333, 666, 999]
    assert evenly(10, 0) == []


def test_values_stand_in_their_natural_order() -> None:
    values = ["10", "9", "1e-4", "zeta", "alpha"]
    assert sorted(values, key=natural) == ["1e-4", "9", "10", "alpha", "zeta"]
    assert sorted(["hard", "easy", "medium"], key=natural) == ["easy", "medium", "hard"]
    assert sorted([True, False], key=natural) == [False, True]


# --- sizes --------------------------------------------------------------------------------------


def test_a_thousand_configurations_stay_legible_and_small(thousand: StudyAnalysis) -> None:
    assert gains_data(thousand).loc[lambda d: d["role"] != "control", "name"].nunique() == 30
    assert len(transfer_data(thousand)) == len(thousand.runs)
    assert curves_data(thousand)["trial"].nunique() == MAX_CURVES
    assert parallel_data(thousand)["place"].nunique() <= 42
    assert seeds_data(thousand)["name"].nunique() == 30
    drawn = figures(thousand)
    assert list(drawn) == ORDER
    assert "30 of 1,000 configurations shown" in said(drawn["gains"])
    texts = {name: specification(chart) for name, chart in drawn.items()}
    assert sum(map(len, texts.values())) < 1_500_000
    for chart in drawn.values():
        check(chart, draws=False)


def test_a_hundred_configurations_stay_below_600_kilobytes(analysis: StudyAnalysis) -> None:
    drawn = figures(scaled_up(analysis, 100))
    assert sum(len(specification(chart)) for chart in drawn.values()) < 600_000


def test_ten_thousand_runs_are_thinned_and_said(thousand: StudyAnalysis) -> None:
    many = dataclasses.replace(thousand, runs=list(thousand.runs) * 8)
    assert len(transfer_data(many)) == 1500
    assert "1,500 of them are drawn" in said(FIGURES["transfer"].draw(many))


# --- nothing to draw ----------------------------------------------------------------------------


@pytest.mark.parametrize("completed", [0, 1, 2])
def test_few_trials_leave_figures_out(tmp_path: Path, completed: int) -> None:
    space = {"HPARAM_CANDIDATES": {"lora_r": [4, 8]}, "replicates_of_default": 1}
    few = planted(tmp_path, space, failed=range(completed, 3))
    assert few.num_completed == completed
    drawn = figures(few)
    if completed == 0:
        assert drawn == {}
    else:
        assert {"gains", "transfer", "curves", "strata", "confusion"} <= set(drawn)
        assert "seeds" not in drawn
        assert ("front" in drawn) == (completed > 1)
    for name, chart in drawn.items():
        check(chart, draws=completed == 2)
        assert FIGURES[name].caption(few)


def test_studies_without_answers_or_curves_leave_figures_out(tmp_path: Path) -> None:
    cleaned = planted(tmp_path, with_predictions=False)
    cleaned = dataclasses.replace(cleaned, curves=[])
    drawn = figures(cleaned)
    assert set(ORDER) - set(drawn) == {"curves", "strata", "confusion", "positions"}
    for chart in drawn.values():
        check(chart, draws=False)


def test_gains_that_are_all_equal_still_draw(analysis: StudyAnalysis) -> None:
    first = analysis.configurations[0]
    rows = [
        dataclasses.replace(row, gains=first.gains, objective=first.objective)
        for row in analysis.configurations
    ]
    runs = [
        dataclasses.replace(run, spelling=0.0, position=0.0, count=0.0) for run in analysis.runs
    ]
    flat = dataclasses.replace(analysis, configurations=rows, runs=runs)
    for chart in figures(flat).values():
        check(chart)


# --- specifications -----------------------------------------------------------------------------


def check(chart: Any, *, draws: bool = True) -> None:
    """Compile a chart, and draw it; altair and Vega complain of what is wrong."""
    import vl_convert

    found = json.loads(specification(chart))
    vega = vl_convert.vegalite_to_vega(found)
    assert not draws or vl_convert.vega_to_svg(vega).startswith("<svg")


def said(chart: Any) -> str:
    """Return the subtitle of a chart."""
    return " ".join(chart.to_dict()["title"]["subtitle"])


def nodes(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield everything in a specification but its data."""
    yield path, found
    if isinstance(found, dict):
        for key, value in found.items():
            if key != "datasets":
                yield from nodes(value, (*path, key))
    elif isinstance(found, list):
        for value in found:
            yield from nodes(value, path)


def test_every_chart_says_what_it_is_of_and_whose(
    analysis: StudyAnalysis, specifications: dict[str, Any]
) -> None:
    for name, found in specifications.items():
        title = found["title"]
        assert title["text"] == FIGURES[name].title
        assert title["subtitle"][-1] == f"Study planted, {analysis.model}"
        assert "interval" in " ".join(title["subtitle"]).lower() or name == "transfer"
        assert len(FIGURES[name].caption(analysis)) > 80


def test_axes_of_numbers_name_their_unit(specifications: dict[str, Any]) -> None:
    units = ("points", "%", "optimizer steps", "log scale", "position asked for")
    plain = {"likeliest answer", "true count"}
    for chart in specifications.values():
        for path, found in nodes(chart):
            if path[-2:] in (("encoding", "x"), ("encoding", "y")) and found.get("title"):
                assert found["title"] in plain or any(u in found["title"] for u in units), found


def test_colours_of_text_and_background_are_left_to_the_page(
    specifications: dict[str, Any],
) -> None:
    for name, chart in specifications.items():
        for path, found in nodes(chart):
            key = path[-1] if path else ""
            assert key not in ("labelColor", "titleColor", "subtitleColor", "gridColor"), path
            assert key != "background", path
            if key == "mark" and isinstance(found, dict) and found["type"] == "text":
                # Only inside a coloured cell, which is the background of its label.
                assert ("color" in found) == (name in ("strata", "confusion"))


def test_nothing_is_loaded(specifications: dict[str, Any]) -> None:
    for found in specifications.values():
        assert not any(path and path[-1] in ("url", "href") for path, _ in nodes(found))
        assert json.dumps(found).count("http") == 1  # the name of the schema


def hostile(analysis: StudyAnalysis) -> StudyAnalysis:
    """Return an analysis whose every text of a user tries to break out."""
    first, *rest = analysis.configurations
    row = dataclasses.replace(first, label=HOSTILE, parameters={"lora_r": HOSTILE, HOSTILE: 1})
    old = first.label
    renamed = {
        name: [
            dataclasses.replace(found, label=HOSTILE) if found.label == old else found
            for found in getattr(analysis, name)
        ]
        for name in ("runs", "costs", "curves", "strata", "confusion")
    }
    effects = [
        dataclasses.replace(effect, parameter=HOSTILE, value=HOSTILE)
        for effect in analysis.effects[:4]
    ]
    return dataclasses.replace(
        analysis,
        study=HOSTILE,
        model=HOSTILE,
        configurations=[row, *rest],
        effects=effects,
        **renamed,
    )


def test_texts_of_users_are_data_and_never_expressions(analysis: StudyAnalysis) -> None:
    drawn = figures(hostile(analysis))
    assert list(drawn) == ORDER
    for name, chart in drawn.items():
        text = specification(chart)
        assert "<" not in text
        assert ">" not in text
        found = json.loads(text)
        assert "alert(1)" in text, name
        for path, value in nodes(found):
            if path and path[-1] in ("expr", "signal", "filter", "calculate", "test", "field"):
                assert "alert" not in json.dumps(value), path
        check(chart)


# --- files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(charts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    paths = save_figures(charts, folder, "planted")
    names = [f"planted_{name}.{ending}" for name in charts for ending in ("png", "svg", "html")]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    return folder


@pytest.mark.parametrize("name", ORDER)
def test_files_of_a_figure(saved: Path, name: str) -> None:
    png = (saved / f"planted_{name}.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    width = int.from_bytes(png[16:20])
    svg = ElementTree.fromstring((saved / f"planted_{name}.svg").read_text())
    assert width == pytest.approx(2 * float(svg.attrib["width"]), abs=2)
    assert width < 3000
    page = (saved / f"planted_{name}.html").read_text()
    assert f"<title>planted: {FIGURES[name].title}</title>" in page
    head = page[: page.index("<script>")]
    assert "default-src 'none'" in head
    assert "src=" not in head
    assert "http://" not in head
    assert page.count("<script") == page.count("</script>") == 2


def test_a_page_has_one_copy_of_the_program_and_no_way_out_of_it(
    analysis: StudyAnalysis, tmp_path: Path
) -> None:
    charts = {"gains": FIGURES["gains"].draw(hostile(analysis))}
    _, _, path = save_figures(charts, tmp_path, "planted")
    page = path.read_text()
    assert page.count("</script>") == 2
    assert "<script>alert" not in page
    assert visualization.javascript() in page
    assert visualization.javascript() is visualization.javascript()


def test_an_old_file_survives_a_disk_that_refuses(charts: dict[str, Any], tmp_path: Path) -> None:
    from tuning.errors import ResultsError

    (tmp_path / "planted_gains.png").mkdir()
    with pytest.raises(ResultsError, match="planted_gains.png"):
        save_figures({"gains": charts["gains"]}, tmp_path, "planted")


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("name", ["gains", "curves", "strata"])
def test_pages_draw_in_a_browser_without_a_network(saved: Path, tmp_path: Path, name: str) -> None:
    dumped = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"),
            (saved / f"planted_{name}.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert dumped.stdout.count("<svg") >= 1
    assert FIGURES[name].title in dumped.stdout
    assert "CONSOLE" not in dumped.stderr
