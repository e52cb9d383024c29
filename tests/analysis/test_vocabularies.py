"""Vocabularies side by side: planted differences, speed and memory by hand, partial studies."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis_support import DEFAULT_ONLY, NAME, Planted, copy_of, plant
from planted_study import Effect
from report_pages import Page
from tuning import report, visualization
from tuning.analysis.resources import ratio_of
from tuning.analysis.vocabularies import OverWhole, VocabularyRow
from tuning.figures.vocabularies import vocabularies_data
from tuning.measures import PREDICTIONS, STRICT
from tuning.mixed_effects import Basis, independent_difference
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, write_record
from tuning.study import existing_spec, load_study
from tuning.transfer_analysis import StudyAnalysis, analyze, read_analysis, write_analysis

SPACE = {
    "strategy": "listed",
    "configurations": [
        {"use_english_only_tokens": True},
        {"use_english_only_tokens": True, "subset_rule": "letters"},
        {"use_english_only_tokens": True, "subset_rule": "dictionary"},
        {"use_english_only_tokens": True, "lora_r": 4},
    ],
    "replicates": 3,
    "replicates_of_default": 3,
    "pruning": "none",
}
ROWS = {"whole": 5000, "printable": 4000, "letters": 3000, "dictionary": 2000}
SPEED = {"whole": 1000, "printable": 1250, "letters": 2000, "dictionary": 2000}
"""Tokens a second of the first seed; later ones are 10 and 20 % slower."""
MEMORY = {"whole": 400, "printable": 300, "letters": 200, "dictionary": 100}
"""MiB."""


def effect_of(parameters: Mapping[str, Any], seed: int) -> Effect:
    """Letters alone spell worse; lora_r would mislead if it were compared."""
    if parameters.get("lora_r"):
        return Effect(position=0.3)
    worse = parameters.get("subset_rule") == "letters"
    return Effect(spelling=0.0 if worse else 0.25, position=0.1)


def name_of(record: TrialRecord) -> str:
    cut = record.parameters.get("use_english_only_tokens")
    return str(record.parameters.get("subset_rule", "printable")) if cut else "whole"


def changed(root: ResultsRoot, change: Callable[[TrialRecord], TrialRecord]) -> None:
    """Write every record of a study anew."""
    for record in load_study(root, NAME)[1]:
        write_record(root.study(NAME).trial(record.trial_id), change(record))


def measured(record: TrialRecord) -> TrialRecord:
    name = name_of(record)
    slower = 1 - 0.1 * (record.seed - min(SEEDS))
    tokens = record.execution.num_trained_tokens
    execution = dataclasses.replace(
        record.execution,
        train_seconds=tokens / (SPEED[name] * slower),
        peak_memory_bytes=MEMORY[name] * 2**20,
    )
    result = dataclasses.replace(record.result, num_vocabulary_rows=ROWS[name])
    return dataclasses.replace(record, execution=execution, result=result)


SEEDS = range(3)


def ask_other_words(root: ResultsRoot) -> None:
    """Give the dictionary rule words of its own: an untouched model and answers on those."""
    spec = existing_spec(root, NAME)
    (base,) = root.trainings.glob("base_*")
    other = base.with_name("base_dictionary")
    shutil.copytree(base, other)
    folders = [other]
    for record in load_study(root, NAME)[1]:
        if record.parameters.get("subset_rule") == "dictionary":
            folders.append(root.training(record.result.training_key).root)
            result = dataclasses.replace(record.result, base_key=other.name)
            new = dataclasses.replace(record, result=result)
            write_record(root.study(spec.name).trial(record.trial_id), new)
    for folder in folders:
        (path,) = folder.rglob(PREDICTIONS)
        frame = pd.read_parquet(path)
        frame.assign(word=frame["word"] + "x").to_parquet(path, index=False)


@functools.cache
def study() -> Planted:
    planted = plant(
        effect_of, SPACE, seed_deviation=0.005, word_seed_deviation=0.02, word_deviation=0.02
    )
    changed(planted.root, measured)
    ask_other_words(planted.root)
    return planted._replace(analysis=analyze(planted.root, NAME))


def rows(analysis: StudyAnalysis | None = None) -> dict[str, VocabularyRow]:
    return {row.name: row for row in (analysis or study().analysis).vocabularies}


def over(name: str, task: str) -> OverWhole:
    found = rows()[name].tasks[task].over_whole
    assert found is not None
    return found


def test_vocabularies_are_those_of_the_default_by_size() -> None:
    assert [(row.name, row.num_rows) for row in study().analysis.vocabularies] == [*ROWS.items()]
    labels = {row.label for row in study().analysis.vocabularies}
    assert "default" in labels
    assert not any("lora_r" in label for label in labels)
    assert all(len(row.seeds) == 3 for row in rows().values())


def test_differences_are_those_of_the_means_over_seeds() -> None:
    answers = {
        name: [study().answers(t) for t, r in study().records.items() if keeps(r, name)]
        for name in ROWS
    }
    for name in ("printable", "letters"):
        for task, found in rows()[name].tasks.items():
            means = {
                n: np.mean([f.loc[f["task"] == task, STRICT].mean() for f in answers[n]])
                for n in (name, "whole")
            }
            assert found.level.value == pytest.approx(means[name])
            difference = over(name, task)
            assert difference.level.value == pytest.approx(means[name] - means["whole"])
            # One untouched model here, so gains differ as levels do.
            assert difference.gain.value == pytest.approx(difference.level.value)
            assert difference.is_same_items
            assert difference.level.basis is Basis.SEEDS
            asked = answers[name][0].query("task == @task")
            assert (found.num_items, found.num_words) == (len(asked), asked["word"].nunique())


def keeps(record: TrialRecord, name: str) -> bool:
    return name_of(record) == name and "lora_r" not in record.parameters


def test_what_was_planted_is_told_apart_and_nothing_else() -> None:
    apart = {
        (name, task)
        for name, row in rows().items()
        for task, found in row.tasks.items()
        if found.over_whole and found.over_whole.is_told_apart
    }
    assert ("letters", "spelling") in apart
    assert apart <= {("letters", "spelling"), ("dictionary", "spelling")}
    found = over("letters", "spelling").level
    assert found.low < -0.25 < found.high
    assert all(task.over_whole is None for task in rows()["whole"].tasks.values())


def test_words_cancel_on_the_same_items_alone() -> None:
    def width(name: str) -> float:
        found = over(name, "position").level
        return found.high - found.low

    unlike = over("dictionary", "position")
    assert not unlike.is_same_items
    tasks = [rows()[name].tasks["position"] for name in ("dictionary", "whole")]
    assert unlike.level == independent_difference(*(task.level for task in tasks))
    assert unlike.gain == independent_difference(*(task.gain for task in tasks))
    assert width("printable") < 0.7 * width("dictionary")


def test_speed_and_memory_by_hand() -> None:
    letters, whole = rows()["letters"], rows()["whole"]
    speed = letters.resources.tokens_per_second
    assert speed is not None
    assert (speed.low, speed.mean, speed.high) == pytest.approx((1600, 1800, 2000), rel=1e-3)
    assert letters.speed_ratio == ratio_of(speed, whole.resources.tokens_per_second)
    assert letters.speed_ratio is not None
    assert letters.speed_ratio.value == pytest.approx(2, rel=1e-3)
    assert letters.speed_ratio.is_interval
    # Logarithms of 1, .9, .8 have deviation .1116: error .1116 sqrt(2/3), t of 4 degrees 2.776.
    assert letters.speed_ratio.high == pytest.approx(
        2 * np.exp(2.776 * 0.1116 * (2 / 3) ** 0.5), rel=1e-3
    )
    assert letters.memory_ratio is not None
    assert (letters.memory_ratio.low, letters.memory_ratio.high) == pytest.approx((0.5, 0.5))
    assert letters.gpu_memory_ratio is None
    assert whole.speed_ratio is whole.memory_ratio is None


def test_the_cost_of_each_configuration_says_the_same() -> None:
    costs = {cost.label: cost for cost in study().analysis.costs}
    for row in rows().values():
        assert costs[row.label].resources == row.resources


def test_sentences_say_what_changed_and_what_could_have_been_found() -> None:
    first, same, unlike, costs = study().analysis.vocabulary_sentences
    assert "(printable, letters, dictionary), accuracy differs" in first
    assert "letters spelling -2" in first
    assert "Holm over 9 comparisons; intervals over seeds and words" in first
    assert "On the same items a single difference is found with 80 % power" in same
    assert unlike.startswith("dictionary: independent samples")
    assert "letters (3,000 of 5,000 rows) tokens per second 2.00 [" in costs
    assert "peak memory 0.50 [0.50, 0.50]" in costs
    assert set(study().analysis.vocabulary_sentences) <= set(study().analysis.verdict)
    assert not any("different untouched models" in note for note in study().analysis.notes)
    assert any("dictionary was asked about other words" in note for note in study().analysis.notes)


def test_one_vocabulary_is_compared_with_nothing() -> None:
    analysis = plant(effect_of, DEFAULT_ONLY, **FEW).analysis
    assert analysis.vocabularies == analysis.vocabulary_sentences == []
    assert vocabularies_data(analysis).empty
    page = report.render(analysis, {})
    assert 'id="vocabulary"' not in page
    assert "Vocabulary" not in report.markdown(analysis)


# --- partial and damaged ------------------------------------------------------------------------

TWO = {**SPACE, "configurations": SPACE["configurations"][:2], "replicates": 1}
FEW = {"num_words": 30, "num_monitor_words": 6, "num_generated_items": 18}


@pytest.mark.parametrize(
    ("options", "names", "words"),
    [
        ({"failed": [4]}, ["whole", "printable"], "No run on the vocabulary letters has completed"),
        ({"pruned": [3]}, ["whole", "letters"], "No run on the vocabulary printable"),
        ({"failed": [0, 1, 2]}, ["printable", "letters"], "whole vocabulary has no completed run"),
        ({"failed": [3, 4]}, [], ""),
        ({"failed": range(5)}, [], ""),
        ({"missing": [3]}, ["whole", "letters"], "Trained and evaluated on an English part"),
    ],
    ids=str,
)
def test_studies_without_runs_of_some_vocabulary(
    options: Any, names: list[str], words: str
) -> None:
    planted = plant(effect_of, TWO, **FEW, **options)
    analysis = planted.analysis
    assert [row.name for row in analysis.vocabularies] == names
    assert words in " ".join(analysis.vocabulary_sentences)
    has_whole = "whole" in names
    for row in analysis.vocabularies:
        is_compared = has_whole and row.name != "whole"
        assert all((t.over_whole is not None) == is_compared for t in row.tasks.values())
        assert (row.speed_ratio is not None) == is_compared
        assert row.num_rows is None
    figures = visualization.figures(analysis)
    assert ("vocabularies" in figures) == has_whole * bool(names)
    assert ('id="vocabulary"' in report.render(analysis, figures)) == bool(names)
    write_analysis(planted.root, analysis)
    assert read_analysis(planted.root, NAME) == analysis


def test_without_answers_nothing_is_paired(fast_path: Path) -> None:
    root = copy_of(study(), fast_path)
    for path in root.trainings.rglob(PREDICTIONS):
        path.unlink()
    found = rows(analyze(root, NAME))["printable"].tasks["spelling"].over_whole
    assert found is not None
    assert not found.is_same_items
    assert found.level.value == pytest.approx(over("printable", "spelling").level.value)


def test_weights_of_other_trials_have_no_speed(fast_path: Path) -> None:
    root = copy_of(study(), fast_path)

    def reused(record: TrialRecord) -> TrialRecord:
        if name_of(record) != "letters":
            return record
        return dataclasses.replace(
            record, execution=dataclasses.replace(record.execution, train_seconds=0.0)
        )

    changed(root, reused)
    letters = rows(analyze(root, NAME))["letters"]
    assert (
        letters.speed_ratio is letters.memory_ratio is letters.resources.tokens_per_second is None
    )
    assert letters.resources.evaluation_seconds is not None


# --- figure and report --------------------------------------------------------------------------


def test_the_figure_has_differences_in_points_and_ratios() -> None:
    data = vocabularies_data(study().analysis)
    tasks, ratios = data[data["task"].notna()], data[data["task"].isna()]
    # The dictionary rule was asked other words: its gains alone.
    assert len(tasks) == 3 * (2 + 2 + 1)
    assert set(tasks.loc[tasks["vocabulary"] == "dictionary", "reading"]) == {"gain"}
    for _, found in tasks.iterrows():
        difference = over(found["vocabulary"], found["task"])
        wanted = difference.level if found["reading"] == "accuracy" else difference.gain
        assert (found["value"], found["low"], found["high"]) == pytest.approx(
            (100 * wanted.value, 100 * wanted.low, 100 * wanted.high)
        )
    assert ratios["reading"].value_counts().to_dict() == {"speed": 3, "memory": 3}
    letters = ratios[ratios["vocabulary"] == "letters"].set_index("reading")["value"]
    assert letters.to_dict() == pytest.approx({"speed": 2, "memory": 0.5}, rel=1e-3)


def test_the_figure_draws_and_says_what_its_bars_are() -> None:
    import vl_convert

    chart = visualization.FIGURES["vocabularies"].draw(study().analysis)
    specified = json.loads(visualization.specification(chart))
    says = " ".join(specified["title"]["subtitle"])
    assert "bars are 95 % intervals over runs" in says
    assert "spelling 100 words" in says
    assert vl_convert.vega_to_svg(vl_convert.vegalite_to_vega(specified)).startswith("<svg")


def test_the_report_and_its_summary_have_the_section() -> None:
    analysis = study().analysis
    page = Page(report.render(analysis, visualization.figures(analysis)))
    links = [a.get("href") for a in page.all("a")]
    assert links.index("#vocabulary") == links.index("#cost") - 1
    assert page.by_id("figure-vocabularies") is not None
    table = page.tables["vocabularies"]
    assert len(table.rows) == 4 * 3
    cells = {(row[0].text, row[3].text): row for row in table.rows}
    spelling = cells["letters", "spelling"]
    assert spelling[table.heads.index("Above the whole one")].number == pytest.approx(
        100 * over("letters", "spelling").level.value, abs=0.051
    )
    assert "differs" in spelling[table.heads.index("p (Holm)")].text
    costs = page.tables["vocabulary-costs"].by_first()
    assert costs["letters"][2].text == "1,800 (1,600 to 2,000)"
    assert costs["letters"][5].text == "200"
    own = page.tables["costs"]
    assert own.column("Peak memory, MiB")[0].number in MEMORY.values()
    text = report.markdown(analysis)
    assert "## Vocabulary" in text
    assert "| letters | 3,000 | 1,800 (1,600 to 2,000) | 2.00 [" in text


def test_the_analysis_is_written_and_read_again(fast_path: Path) -> None:
    root = copy_of(study(), fast_path)
    write_analysis(root, study().analysis)
    assert read_analysis(root, NAME) == study().analysis
    frame = pd.read_csv(root.transfer / f"{NAME}_vocabularies.csv")
    assert list(frame["name"]) == list(ROWS)
    assert frame["speed_ratio.value"].iloc[2] == pytest.approx(2, rel=1e-3)
