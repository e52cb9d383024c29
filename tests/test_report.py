"""The report: honest at every size, escaped, self-contained, the same for the same analysis."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_support import folder_in_memory
from conftest import SMALL as SMALL_EXPERIMENT
from planted_study import Effect, always, write_planted_study
from report_pages import Page, text_of
from tuning import files, report, visualization
from tuning.analysis.comparison import compare, independent_difference
from tuning.composition import overridden
from tuning.config import build
from tuning.mixed_effects import Basis, Estimate
from tuning.paths import ResultsRoot
from tuning.search_space import SearchSpace
from tuning.study import StudySpec
from tuning.transfer_analysis import StudyAnalysis, analyze, read_analysis, write_analysis

FLAT = Effect()
LEARNS = Effect(spelling=0.2)
MOVES = Effect(spelling=0.2, position=0.25, count=0.25)
FORMAT = Effect(spelling=0.2, position=0.13, count=0.13, position_choice=0.0, count_choice=0.0)
SPACE = {"HPARAM_CANDIDATES": {"lora_r": [4, 8, 32]}, "replicates_of_default": 2}
FOUR = {**SPACE, "replicates_of_default": 4}
SMALL = {
    "num_words": 80,
    "num_monitor_words": 12,
    "num_generated_items": 45,
    "exact_intervals": False,
}
CLEAR = {"num_words": 300, "seed_deviation": 0.002, "word_seed_deviation": 0.01}
"""Of studies in which what was planted must come out."""

Plant = Callable[..., StudyAnalysis]
SMALL_CONFIG = overridden(build(SMALL_EXPERIMENT, "test"), [])


def write(folder: Path, effect: Any = LEARNS, space: Any = SPACE, **options: Any) -> StudyAnalysis:
    """Write a study into a folder and analyse it."""
    root, name = ResultsRoot(folder), options.pop("name", "planted")
    spec = StudySpec(
        name=name,
        space=SearchSpace.model_validate(space),
        base=SMALL_CONFIG,
        **options.pop("spec", {}),
    )
    effect_of = always(effect) if isinstance(effect, Effect) else effect
    write_planted_study(root, spec, effect_of, **{**SMALL, **options})
    return analyze(root, name)


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    """Return a function that writes a study and analyses it, each once."""
    made: dict[str, StudyAnalysis] = {}
    with folder_in_memory() as folder:

        def planted(*arguments: Any, **options: Any) -> StudyAnalysis:
            key = f"{arguments} {options}"
            if key not in made:
                made[key] = write(folder / str(len(made)), *arguments, **options)
            return made[key]

        yield planted


def page_of(analysis: StudyAnalysis) -> tuple[Page, str]:
    text = report.render(analysis, visualization.figures(analysis))
    return Page(text), text


def with_winner(parameters: Mapping[str, Any], seed: int) -> Effect:
    return MOVES if parameters.get("lora_r") == 4 else LEARNS


def with_ceiling(parameters: Mapping[str, Any], seed: int) -> Effect:
    return MOVES if parameters.get("arm") == "direct" else LEARNS


def with_flat_default(parameters: Mapping[str, Any], seed: int) -> Effect:
    return LEARNS if parameters else FLAT


# --- what is said -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (MOVES, "position improved too: transfer"),
        (FORMAT, "position improved in format only"),
        (LEARNS, "position did not measurably change"),
    ],
)
def test_the_word_transfer_needs_both_readings(plant: Plant, effect: Effect, words: str) -> None:
    page, _ = page_of(plant(effect, FOUR, seed=1, **CLEAR))
    (lead,) = [p for p in page.all("p") if p.get("class") == "lead"]
    assert words in text_of(lead)
    assert ("transfer" in text_of(lead)) == (effect is MOVES)
    readings = {row[1].text for row in page.tables["efficiency"].rows}
    assert ("transfer" in readings) == (effect is MOVES)


def test_a_fall_is_called_a_fall(plant: Plant) -> None:
    falls = Effect(position=-0.25, count=-0.25, position_choice=-0.25, count_choice=-0.25)
    page, _ = page_of(plant(falls, FOUR, **CLEAR))
    assert "position got worse and count got worse" in page.text


def test_noise_is_no_winner_and_a_large_effect_is(plant: Plant) -> None:
    noise, _ = page_of(plant())
    assert "no configuration beats the default" in noise.text
    assert not any("beats" in row[5].text for row in noise.tables["ranking"].rows)
    large, _ = page_of(plant(with_winner, FOUR, **CLEAR))
    rows = large.tables["ranking"].by_first()
    assert rows["1"][1].text == "lora_r=4"
    assert "beats the default" in rows["1"][5].text


def test_the_verdict_comes_first_and_the_sections_in_order(plant: Plant) -> None:
    page, _ = page_of(plant())
    headings = [node.get("id") for node in page.all("h2")]
    assert headings == ["verdict", *(name for name, _ in report.SECTIONS)]
    links = [a.get("href") for nav in page.all("nav") for a in nav.iter("a")]
    assert links == [f"#{name}" for name, _ in report.SECTIONS]
    assert "No evidence about Qwen3-4B" in page.text


@pytest.mark.parametrize(
    ("options", "completed"),
    [
        ({"missing": range(5)}, 0),
        ({"missing": range(1, 5)}, 1),
        ({"missing": range(2, 5)}, 2),
        ({"failed": range(5)}, 0),
        ({"failed": [0], "missing": [2, 3, 4]}, 1),
        ({"failed": [0, 1], "pruned": [2]}, 2),
        ({"pruned": range(5)}, 0),
    ],
    ids=["none", "one", "two", "all failed", "default failed once", "default failed", "all pruned"],
)
def test_the_report_is_honest_at_every_size(
    plant: Plant, options: dict[str, Any], completed: int
) -> None:
    analysis = plant(**options)
    page, _ = page_of(analysis)
    assert f"{completed} of 5 trials completed" in page.text
    assert "No evidence about Qwen3-4B" in page.text
    num_failed = len(options.get("failed", ()))
    assert f"{num_failed} failed" in page.text
    if completed == 0:
        assert "nothing to conclude" in page.text
        assert "ranking" not in page.tables
    ended = [*options.get("failed", ()), *options.get("pruned", ())]
    assert len(page.tables["ended"].rows if ended else []) == len(ended)
    if completed == 1:
        assert "of this adapter, not of this configuration" in page.text
    assert report.markdown(analysis).startswith("# planted\n")


def _remove_base(root: ResultsRoot) -> None:
    (base,) = root.trainings.glob("base_*")
    shutil.rmtree(base)


def _remove_half(root: ResultsRoot) -> None:
    for place in sorted(root.trainings.iterdir())[::2]:
        shutil.rmtree(place)
    (root.study("planted").trials / "0001-aaaaaaaa").mkdir()


def _mix(root: ResultsRoot) -> None:
    path = sorted(root.study("planted").trials.glob("*/record.json"))[-1]
    record = files.read_json(path)
    record["execution"]["versions"] = {"torch": "1.0"}
    record["execution"]["num_threads"] = 7
    record["result"]["base_evaluation_key"] = "0" * 16
    files.write_json(path, record)


def _tear(root: ResultsRoot) -> None:
    for path in sorted(root.trainings.rglob("predictions.parquet"))[:2]:
        path.write_bytes(path.read_bytes()[:100])
    for path in root.trainings.rglob("progress.jsonl"):
        path.unlink()


@pytest.mark.parametrize("damage", [_remove_base, _remove_half, _mix, _tear])
def test_what_is_missing_is_said(fast_path: Path, damage: Any) -> None:
    write(fast_path)
    damage(ResultsRoot(fast_path))
    analysis = analyze(ResultsRoot(fast_path), "planted")
    page, _ = page_of(analysis)
    assert analysis.notes
    for note in analysis.notes:
        assert " ".join(note.split()) in page.text
    assert f"{len(analysis.notes)} note" in page.text
    assert len(page.tables["ranking"].rows) == len(analysis.configurations)


def test_controls_explain_and_do_not_compete(plant: Plant) -> None:
    arms = {"arm": ["format_control", "direct"], "lora_r": [8]}
    space = {"HPARAM_CANDIDATES": arms, "replicates_of_default": 2}
    page, _ = page_of(plant(with_ceiling, space))
    assert {row[1].text for row in page.tables["ranking"].rows} == {"default", "lora_r=8"}
    names = {"untouched", "default", "arm=direct", "arm=format_control"}
    assert set(page.tables["arms"].by_first()) == names
    assert "PGR" in page.tables["efficiency"].heads


def test_without_a_direct_arm_the_gap_is_undefined_with_its_reason(plant: Plant) -> None:
    page, _ = page_of(plant())
    assert "PGR" not in page.tables["efficiency"].heads
    assert "PGR is undefined for all of them: no direct arm was trained" in page.text


def test_no_gain_in_spelling_leaves_the_efficiency_undefined(plant: Plant) -> None:
    page, _ = page_of(plant(FLAT))
    cells = page.tables["efficiency"].column("TE")
    assert any("undefined: the spelling gain" in cell.text for cell in cells)
    assert not any(cell.text in ("inf", "nan", "0.00") for cell in cells)


# --- form ---------------------------------------------------------------------------------------


def test_the_page_is_a_function_of_the_analysis(plant: Plant, tmp_path: Path) -> None:
    analysis = plant(failed=[3])
    root = ResultsRoot(tmp_path)
    write_analysis(root, analysis)
    read = read_analysis(root, "planted")
    charts = visualization.figures(analysis)
    page = report.render(analysis, charts)
    assert page == report.render(analysis, charts) == report.render(read, charts)
    assert report.markdown(read) == report.markdown(analysis)
    assert str(tmp_path) not in page


NASTY = "<script>alert(1)</script>\"'><img src=http://x.test/a.png>{{ 7 * 7 }} </script><!-- `|*"


def nasty(analysis: StudyAnalysis) -> StudyAnalysis:
    """Put a text that would break out into every text that comes from outside."""
    row = dataclasses.replace(analysis.configurations[0], label=NASTY, same_weights_as=NASTY)
    return dataclasses.replace(
        analysis,
        study=NASTY,
        model=NASTY,
        verdict=[NASTY, NASTY],
        notes=[NASTY],
        configurations=[row, *analysis.configurations[1:]],
        trials=[dataclasses.replace(t, label=NASTY, remark=NASTY) for t in analysis.trials],
        provenance={**analysis.provenance, NASTY: {NASTY: [NASTY]}},
    )


def test_texts_stay_texts(plant: Plant) -> None:
    plain = plant(failed=[3])
    page, text = page_of(nasty(plain))
    clean, _ = page_of(plain)
    for tag in ("script", "img", "style", "table", "section"):
        assert len(page.all(tag)) == len(clean.all(tag))
    assert "alert(1)</script>" not in text
    assert page.text.count("{{ 7 * 7 }}") >= 8
    assert "49 " not in text_of(page.all("h1")[0])
    data = json.loads(page.by_id("data").text or "")
    assert data["analysis"]["study"] == NASTY
    summary = report.markdown(nasty(plain))
    assert "<script" not in summary
    assert "<img" not in summary


def test_nothing_is_fetched_and_the_file_is_small(plant: Plant) -> None:
    values = {"lora_r": [4, 8, 32], "learning_rate": [1e-4 * k for k in range(1, 33)]}
    space = {"strategy": "grid", "HPARAM_CANDIDATES": values}
    analysis = plant(space=space)
    assert len(analysis.trials) >= 96
    page, text = page_of(analysis)
    assert len(text.encode()) < 3_000_000
    for node in page.root.iter():
        for name in ("src", "href", "action", "poster", "srcset", "data"):
            value = node.get(name)
            assert value is None or value.startswith(("#", "data:")), (node.tag, name, value)
    style = page.all("style")[0].text or ""
    assert "url(" not in style
    assert "@import" not in style


def test_accessible_by_form(plant: Plant) -> None:
    page, _ = page_of(plant(failed=[3]))
    assert page.all("html")[0].get("lang") == "en"
    assert {len(page.all(tag)) for tag in ("main", "nav", "h1", "header", "footer")} == {1}
    ids = [node.get("id") for node in page.root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    for th in page.all("th"):
        assert th.get("scope") in ("col", "row")
    for row in (row for body in page.all("tbody") for row in body.iter("tr")):
        assert [cell.tag for cell in row].count("th") == 1
    for table in page.tables.values():
        assert table.caption
        assert all(len(row) == len(table.heads) for row in table.rows), table.caption
    for chart in (node for node in page.all("div") if node.get("class") == "chart"):
        assert chart.get("role") == "img"
        assert len(chart.get("aria-label") or "") > 10
    assert len(page.all("figcaption")) == len(page.all("figure"))
    labelled = {label.get("for") for label in page.all("label")}
    assert {n.get("id") for tag in ("input", "select") for n in page.all(tag)} == labelled
    for ending in [node.get("href") for node in page.all("a")]:
        assert (ending or "")[1:] in ids
    levels = [int(n.tag[1]) for n in page.root.iter() if n.tag in ("h1", "h2", "h3", "h4")]
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


def test_every_figure_stands_once(plant: Plant) -> None:
    analysis = plant()
    charts = visualization.figures(analysis)
    page, _ = page_of(analysis)
    drawn = [n.get("id") for n in page.all("figure")]
    assert sorted(drawn) == sorted(f"figure-{name}" for name in charts)
    assert drawn[0] == "figure-gains"
    for name in charts:
        json.loads(page.by_id(f"spec-{name}").text or "")


def test_files_are_written(plant: Plant, tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)
    path = report.write_report(root, plant())
    assert path == tmp_path / "reports" / "planted.html"
    assert Page(path.read_text()).tables["ranking"].rows
    assert (tmp_path / "reports" / "planted.md").read_text().startswith("# planted\n")


def test_pictures_are_written_as_png_and_svg(plant: Plant, tmp_path: Path) -> None:
    report.write_report(ResultsRoot(tmp_path), plant())
    for name in ("gains", "transfer"):
        assert (tmp_path / "figures" / f"planted_{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "figures" / f"planted_{name}.svg").read_text().startswith("<svg")


def test_the_summary_has_the_numbers_of_the_page(plant: Plant) -> None:
    analysis = plant()
    page, _ = page_of(analysis)
    summary = report.markdown(analysis)
    assert analysis.verdict[0] in summary
    lines = [line for line in summary.splitlines() if line.startswith("| 1 |")]
    assert page.tables["ranking"].rows[0][3].text in lines[0]
    for heading in ("## Verdict", "## Ranking", "## Transfer", "## Methods", "## More"):
        assert heading in summary
    widths = {line.count("|") for line in summary.split("## Ranking")[1].splitlines()[4:8]}
    assert len(widths) == 1


def test_long_tables_keep_the_default_in_view(plant: Plant) -> None:
    values = {"learning_rate": [1e-4 * k for k in range(1, 27)]}
    page, _ = page_of(
        plant(with_flat_default, {"HPARAM_CANDIDATES": values, "replicates_of_default": 2})
    )
    table = page.by_id("table-ranking")
    rows = list(table.find("tbody") or [])
    assert len(rows) > report.LIMIT
    hidden = [row for row in rows if "extra" in (row.get("class") or "")]
    (default,) = [row for row in rows if "the default" in text_of(row)]
    assert default not in hidden
    assert len(rows) - len(hidden) in (report.LIMIT, report.LIMIT + 1)
    assert f"Show all {len(rows)} rows" in page.text


# --- two studies --------------------------------------------------------------------------------


def estimate_of(value: float, error: float, freedom: float) -> Estimate:
    return Estimate(
        value=value,
        low=value - error,
        high=value + error,
        p_value=0.5,
        standard_error=error,
        freedom=freedom,
        detectable=3 * error,
        basis=Basis.SEEDS,
        num_seeds=3,
    )


def test_independent_differences_are_welchs() -> None:
    from scipy import stats

    generator = np.random.default_rng(0)
    x, y = generator.normal(1, 1, 7), generator.normal(0.2, 3, 12)
    found = independent_difference(
        *(estimate_of(v.mean(), v.std(ddof=1) / np.sqrt(len(v)), len(v) - 1) for v in (x, y))
    )
    wanted = stats.ttest_ind(x, y, equal_var=False)
    interval = wanted.confidence_interval(0.95)
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found.freedom == pytest.approx(wanted.df)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_two_studies_are_compared(plant: Plant, tmp_path: Path) -> None:
    a = plant(MOVES, FOUR, name="one", **CLEAR)
    b = plant(LEARNS, FOUR, name="two", **CLEAR)
    found = compare(a, b)
    assert found.objectives_reason is None
    assert [pair.what for pair in found.pairs] == ["default", "best"]
    assert found.num_tests == 2 * 6
    assert "one is higher" in found.sentences[0]
    assert any("independent" in s for s in found.sentences)
    assert found.settings == []
    path = report.write_comparison(ResultsRoot(tmp_path), a, found)
    assert path.name == "one_vs_two.html"
    page = Page(path.read_text())
    table = page.tables["compared-default"]
    position = next(r for r in table.rows if r[0].text.startswith("position"))
    gains = [x.default.gains["position"].gain.value for x in (a, b) if x.default]
    assert position[4].number == pytest.approx(100 * (gains[0] - gains[1]), abs=0.051)
    assert "one against two" in text_of(page.all("h1")[0])


def test_objectives_of_two_kinds_are_not_compared(plant: Plant) -> None:
    a = plant(name="one")
    b = plant(name="two", spec={"focus": "transfer"})
    found = compare(a, b)
    assert found.objectives_reason is not None
    assert "ranked by" in found.objectives_reason
    assert not any(q.quantity == "objective" for pair in found.pairs for q in pair.quantities)
    assert {s.name for s in found.settings} >= {"study: ranked by"}
    Page(report.render(a, {}, found))


@pytest.mark.parametrize("options", [{"missing": range(5)}, {"failed": [0, 1]}])
def test_a_study_with_nothing_is_compared_honestly(plant: Plant, options: Any) -> None:
    a, b = plant(name="one"), plant(name="two", **options)
    found = compare(a, b)
    text = " ".join(found.sentences)
    assert "two" in text
    assert "nothing to compare" in text or "default of two did not complete" in text.lower()
    Page(report.render(a, visualization.figures(a), found))


def test_texts_of_a_comparison_stay_texts(plant: Plant) -> None:
    a = plant()
    page = Page(report.render(a, {}, compare(nasty(a), nasty(a))))
    assert len(page.all("img")) == 0
