"""The report: honest at every size, escaped, self-contained, and right."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tuning import files, report, visualization
from tuning.executor import log_event
from tuning.measures import Accuracy, Gain, TaskResult
from tuning.paths import ResultsRoot
from tuning.records import Execution, TrialRecord, TrialResult, TrialStatus, write_record
from tuning.search_space import SearchSpace
from tuning.study import StudySpec
from tuning.transfer_analysis import StudyAnalysis, analyze, write_analysis

EXECUTION = Execution(
    started_at="2026-01-01T00:00:00+00:00",
    finished_at="2026-01-01T00:01:00+00:00",
    host="here",
    train_seconds=10.0,
    evaluation_seconds=1.0,
    num_trained_tokens=1000,
    peak_memory_bytes=2**30,
    num_threads=1,
    device="cpu",
    num_attempts=1,
)


def accuracy(value: float) -> Accuracy:
    return Accuracy(value=value, low=value - 0.03, high=value + 0.03, num_items=900, num_words=300)


def gain(value: float, half: float = 0.02) -> Gain:
    return Gain(
        value=value, low=value - half, high=value + half, num_better=40, num_worse=20, p_value=0.01
    )


def result_of(gains: dict[str, tuple[float, float]]) -> TrialResult:
    """Return a completed result with a strict and a choice gain for each task."""
    tasks = {}
    for task, (strict, choice) in gains.items():
        has_choice = task != "spelling"
        tasks[task] = TaskResult(
            baseline=0.2,
            base=accuracy(0.5),
            tuned=accuracy(0.5 + strict),
            gain=gain(strict),
            choice_base=accuracy(0.5) if has_choice else None,
            choice_tuned=accuracy(0.5 + choice) if has_choice else None,
            choice_gain=gain(choice) if has_choice else None,
        )
    position, count = 0.5 + gains["position"][0], 0.5 + gains["count"][0]
    spelling = 0.5 + gains["spelling"][0]
    score = 0.5 * (position + count) + 0.2 * min(spelling, (position + count) / 2)
    return TrialResult(
        status=TrialStatus.COMPLETED,
        training_key="k",
        weights_key="k@10",
        step=10,
        model="tiny (1.38 M parameters)",
        metrics={
            "spelling/accuracy": spelling,
            "spelling/gain": gains["spelling"][0],
            "transfer/position/accuracy": position,
            "transfer/position/gain": gains["position"][0],
            "transfer/count/accuracy": count,
            "transfer/count/gain": gains["count"][0],
            "transfer_learning_score": score,
        },
        tasks=tasks,
    )


FLAT = {"spelling": (0.0, 0.0), "position": (0.0, 0.0), "count": (0.0, 0.0)}


@pytest.fixture
def study(small_config: Any, tmp_path: Path) -> Any:
    """Return a function that writes a study with the given results, in the order of its trials."""

    def write(
        results: list[TrialResult], candidates: dict[str, list[Any]] | None = None
    ) -> ResultsRoot:
        root = ResultsRoot(tmp_path)
        space = SearchSpace.model_validate(
            {"HPARAM_CANDIDATES": candidates or {"lora_r": [4, 8, 32]}, "replicates_of_default": 2}
        )
        spec = StudySpec(name="planted", space=space, base=small_config())
        folder = root.study("planted")
        files.write_atomic(folder.spec, _yaml(spec))
        log_event(folder, "started", num_trials=5)
        for proposal, result in zip(spec.plan(), results, strict=False):
            record = TrialRecord(
                trial_id=proposal.trial_id,
                parameters=proposal.parameters,
                seed=proposal.seed,
                result=result,
                execution=EXECUTION,
            )
            write_record(folder.trial(proposal.trial_id), record)
        return root

    return write


def _yaml(spec: StudySpec) -> str:
    import yaml

    return yaml.safe_dump(spec.model_dump(mode="json", by_alias=True))


def failure(error: str = "out of memory") -> TrialResult:
    return TrialResult(
        status=TrialStatus.FAILED,
        training_key="k",
        weights_key="k@1",
        step=0,
        model="tiny",
        error_type="RuntimeError",
        error=error,
    )


def page_of(root: ResultsRoot) -> tuple[StudyAnalysis, str]:
    analysis = analyze(root, "planted")
    write_analysis(root, analysis)
    return analysis, report.write_report(root, analysis).read_text()


def with_gain(task: str, strict: float, choice: float) -> TrialResult:
    return result_of({**FLAT, "spelling": (0.1, 0.0), task: (strict, choice)})


def planted(result: TrialResult) -> list[TrialResult]:
    """Two flat defaults with a small spread, and one variation."""
    other = result_of({**FLAT, "position": (0.002, 0.002)})
    return [result_of(FLAT), other, result]


@pytest.mark.parametrize(
    ("strict", "choice", "words"),
    [
        (0.10, 0.10, "position improved too: transfer"),
        (0.10, 0.00, "position improved in format only"),
        (0.01, 0.01, "position did not measurably change"),
    ],
)
def test_the_word_transfer_needs_both_readings(
    study: Any, strict: float, choice: float, words: str
) -> None:
    analysis, _ = page_of(study(planted(with_gain("position", strict, choice))))
    first = next(row for row in analysis.configurations if row.label == "lora_r=4")
    assert first.rank == 1
    assert words in analysis.verdict[0]
    assert ("transfer" in analysis.verdict[0]) == (choice > 0.05)


def test_a_fall_is_called_a_fall(study: Any) -> None:
    worse = result_of({**FLAT, "position": (-0.1, -0.1), "count": (-0.1, -0.1)})
    analysis, _ = page_of(study([worse, worse]))
    assert "position got worse and count got worse" in analysis.verdict[0]


def test_noise_is_no_winner_and_a_large_effect_is(study: Any) -> None:
    analysis, _ = page_of(study(planted(result_of({**FLAT, "position": (0.003, 0.003)}))))
    assert any("no configuration beats the default" in s for s in analysis.verdict)
    analysis, _ = page_of(study(planted(with_gain("position", 0.2, 0.2))))
    assert any("1 of 1 others beat the default" in s for s in analysis.verdict)


@pytest.mark.parametrize(
    "results",
    [[], [result_of(FLAT)], [result_of(FLAT)] * 2, [failure()] * 5, [failure(), result_of(FLAT)]],
    ids=["none", "one", "two", "all failed", "default failed once"],
)
def test_the_report_is_honest_at_every_size(study: Any, results: list[TrialResult]) -> None:
    analysis, page = page_of(study(results))
    completed = sum(r.status is TrialStatus.COMPLETED for r in results)
    assert f"{completed} of 5 trials completed" in " ".join(page.split())
    assert "no evidence about Qwen3-4B" in page or "Nothing here is evidence" in page
    if completed == 0:
        assert "nothing to conclude" in analysis.verdict[0]
    elif len(results) == 5:
        assert any("trials failed and are left out" in s for s in analysis.verdict)
    elif completed < 5:
        assert any(f"Only {completed} of 5" in s for s in analysis.verdict)
    if completed == 1:
        alone = "one seed, intervals over words: of this adapter, not of this configuration"
        assert any(alone in s for s in analysis.verdict)


class Elements(HTMLParser):
    """Collects tags, and everything that could make a browser fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:")
        ]


def test_texts_are_escaped_and_nothing_is_fetched(study: Any) -> None:
    nasty = "<script>alert(1)</script><img src=http://x.test/a.png>"
    _, page = page_of(study([result_of(FLAT), result_of(FLAT), failure(nasty)]))
    assert nasty not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    parser = Elements()
    parser.feed(page)
    assert parser.fetched == []
    assert "img" not in parser.tags
    assert parser.tags.count("script") == 2
    assert len(page) < 3_000_000


def test_numbers_of_the_ranking_are_those_of_the_records(study: Any) -> None:
    _, page = page_of(study(planted(with_gain("position", 0.1, 0.1))))
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    first = re.sub(r"<[^>]+>", " ", body.split("</tr>")[0])
    assert first.split()[:2] == ["1.", "lora_r=4"]
    # 0.5 * (0.6 + 0.5) + 0.2 * min(0.6, 0.55)
    assert "0.660" in first
    assert "+10.0 [+8.0, +12.0]" in " ".join(first.split())


def test_figures_show_every_configuration_with_its_interval(study: Any) -> None:
    analysis, _ = page_of(study(planted(with_gain("position", 0.1, 0.1))))
    data = visualization.gains_data(analysis)
    assert len(data) == 3 * len(analysis.configurations)
    row = data[(data["task"] == "position") & (data["rank"] == 1)].iloc[0]
    assert (row["gain"], row["low"], row["high"]) == pytest.approx((10.0, 8.0, 12.0))
    scatter = visualization.transfer_data(analysis)
    assert set(scatter["task"]) == {"position", "count"}
    assert len(scatter) == 2 * len(analysis.configurations)


def test_pictures_are_written_as_png_and_svg(study: Any, tmp_path: Path) -> None:
    page_of(study(planted(result_of(FLAT))))
    for name in ("gains", "transfer"):
        png = (tmp_path / "figures" / f"planted_{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert (tmp_path / "figures" / f"planted_{name}.svg").read_text().startswith("<svg")


def test_the_analysis_is_a_pure_function_of_the_folders(study: Any) -> None:
    root = study(planted(result_of(FLAT)))
    assert dataclasses.asdict(analyze(root, "planted")) == dataclasses.asdict(
        analyze(root, "planted")
    )


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_the_charts_draw_in_a_browser_without_a_network(study: Any, tmp_path: Path) -> None:
    page_of(study(planted(with_gain("position", 0.1, 0.1))))
    path = tmp_path / "reports" / "planted.html"
    dumped = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert dumped.stdout.count("<svg") >= 2
    assert "lora_r=4" in dumped.stdout
    assert "CONSOLE" not in dumped.stderr


def test_an_interval_over_seeds_is_never_narrower_than_one_over_words(study: Any) -> None:
    """Seeds that agree by chance say nothing about the sample of words."""
    analysis, _ = page_of(study([result_of(FLAT), result_of(FLAT)]))
    default = analysis.configurations[0]
    assert default.num_seeds == 2
    for gain_ in default.gains.values():
        assert gain_.low <= -0.02
        assert gain_.high >= 0.02


def test_the_untouched_model_stands_beside_the_ranking(study: Any) -> None:
    analysis, page = page_of(study(planted(result_of(FLAT))))
    # All accuracies of the untouched model are 0.5: 0.5 * (0.5 + 0.5) + 0.2 * 0.5.
    assert analysis.untouched_objective == pytest.approx(0.6)
    assert "0.600" in page
    assert any("untouched: 0.600" in s for s in analysis.verdict)


# --- arms and what else was asked of the untouched model --------------------------------------

ARMS = {"arm": ["format_control", "direct"], "lora_r": [8]}


def with_arms(control: TrialResult, direct: TrialResult) -> list[TrialResult]:
    """Two defaults with a small spread, the two control arms, and one variation."""
    other = result_of({**FLAT, "position": (0.002, 0.002)})
    return [result_of(FLAT), other, control, direct, result_of(FLAT)]


def test_controls_explain_and_do_not_compete(study: Any) -> None:
    best = with_gain("position", 0.4, 0.4)
    analysis, page = page_of(study(with_arms(result_of(FLAT), best), ARMS))
    ranked = [row.label for row in analysis.configurations]
    assert set(ranked) == {"default", "lora_r=8"}
    assert {row.label for row in analysis.controls} == {"arm=format_control", "arm=direct"}
    assert all(row.rank == 0 and not row.beats_default for row in analysis.controls)
    assert not any(
        "beat the default" in s and "no configuration" not in s for s in analysis.verdict
    )
    assert "arm=direct" in page
    assert "arm=format_control" in page


def test_the_verdict_says_of_controls_what_they_are(study: Any) -> None:
    analysis, _ = page_of(study(with_arms(result_of(FLAT), with_gain("position", 0.4, 0.4)), ARMS))
    said = [s for s in analysis.verdict if "against the untouched model" in s]
    assert any("trained on the letters of other words, (arm=format_control)" in s for s in said)
    (ceiling,) = [s for s in said if "trained on position and count themselves" in s]
    assert "position +40.0" in ceiling


def test_the_untouched_model_put_otherwise_stands_in_the_report(study: Any) -> None:
    arms = {
        name: {task: accuracy(value) for task in FLAT}
        for name, value in (("four_shot", 0.512), ("oracle", 0.934))
    }
    results = [dataclasses.replace(r, base_arms=arms) for r in planted(result_of(FLAT))]
    analysis, page = page_of(study(results))
    assert analysis.base_arms == arms
    assert "51.2" in page
    assert "93.4" in page
