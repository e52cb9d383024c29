"""What a person does with a study: look, stop, go on, clean, score anew, test, show."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_support import Program, files_below
from typer.testing import CliRunner

from backend_support import WarmWorker
from tests_support import small_mapping
from tuning import files
from tuning.cli.main import app
from tuning.paths import ResultsRoot
from tuning.scoring import calculate_transfer_score


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, warm_worker: WarmWorker) -> Path:
    """Return a results root in which a study of four trials was run by the program."""
    folder = tmp_path_factory.mktemp("study")
    experiment = small_mapping()
    for key in ("experiment_name", "timestamp"):
        del experiment[key]
    space = {
        "replicates_of_default": 2,
        "objectives": ["spelling", "transfer"],
        "strategy": "bayesian",
        "num_trials": 2,
        "experiment": experiment,
        "HPARAM_RANGE": {"learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}},
    }
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    arguments = ["study", "run", "--space", "space.yaml", "--name", "first", "--quiet"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        warm_worker.serve(monkeypatch)
        done = CliRunner().invoke(app, [*arguments, "--results-dir", "results"])
    assert done.exit_code == 0, done.output
    assert "best configuration: results/configs/first_best.yaml" in done.stdout
    return folder / "results"


def test_status_shows_every_trial_with_both_families_of_metrics(
    study: Path, program: Program
) -> None:
    done = program("study", "status", "first", "--results-dir", study)
    assert done.returncode == 0
    head = done.stdout.splitlines()[0].split()
    wanted = ["state", "step", "loss", "spelling", "position", "count", "score", "steps/s", "cost"]
    assert [name for name in head if name in wanted] == wanted
    assert done.stdout.count("completed") == 5
    assert "finished; of 4: 4 completed" in done.stdout
    answer = json.loads(
        program("study", "status", "first", "--json", "--results-dir", study).stdout
    )
    assert answer["counts"] == {"completed": 4}
    assert [trial["step"] for trial in answer["trials"]] == [12] * 4
    assert all(0 <= trial["position"] <= 1 for trial in answer["trials"])
    watched = program("study", "status", "first", "--watch", "--results-dir", study)
    assert "4 completed" in watched.stdout
    priced = program("study", "status", "first", "--hourly-price", "36", "--results-dir", study)
    assert "(0." in priced.stdout


def test_a_study_that_is_not_there_is_named_and_the_nearest_offered(
    study: Path, program: Program
) -> None:
    for command in ("status", "stop", "resume", "clean", "rescore", "test", "dashboard"):
        more = ["--focus", "transfer"] if command == "rescore" else []
        done = program("study", command, "frist", *more, "--results-dir", study)
        done.assert_one_clear_line("study frist", "did you mean first?")


def test_stop_says_that_nothing_runs(study: Path, program: Program) -> None:
    done = program("study", "stop", "first", "--results-dir", study)
    done.assert_one_clear_line("no driver runs it")


def test_the_front_is_saved_as_files_that_can_be_run(study: Path, program: Program) -> None:
    fronts = sorted((study / "configs").glob("first_front_*.yaml"))
    assert fronts
    assert "no other beats in all of" in fronts[0].read_text()
    assert program("config", "validate", *fronts).returncode == 0


def test_rescoring_makes_a_study_of_its_own_from_stored_answers(
    study: Path, program: Program
) -> None:
    before = files_below(study / "data" / "first")
    weights = ("--position-weight", "0.9", "--count-weight", "0.1")
    done = program("study", "rescore", "first", *weights, "--json", "--results-dir", study)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["study"] == "first_p0.9_c0.1"
    assert answer["weights"] == [0.9, 0.1]
    root = ResultsRoot(study)
    for path in (study / "data" / "first" / "trials").glob("*/record.json"):
        metrics = files.read_json(path)["result"]["metrics"]
        new = root.study("first_p0.9_c0.1").trial(path.parent.name).record
        expected = calculate_transfer_score(
            metrics["spelling/accuracy"],
            metrics["transfer/position/accuracy"],
            metrics["transfer/count/accuracy"],
            0.9,
            0.1,
        )
        assert files.read_json(new)["result"]["metrics"]["transfer_learning_score"] == expected
    assert files_below(study / "data" / "first") == before
    # Again is allowed; over another study it is not.
    assert program("study", "rescore", "first", *weights, "--results-dir", study).returncode == 0
    over = program(
        *("study", "rescore", "first", "--focus", "spelling", "--as", "first"),
        *("--results-dir", study),
    )
    over.assert_one_clear_line("study first exists and is no rescoring of first")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "needs --focus"),
        (["--position-weight", "0.5"], "belong together"),
        (["--focus", "transfer", "--position-weight", "1", "--count-weight", "0"], "not both"),
        (["--position-weight", "1.5", "--count-weight", "0"], "less than or equal to 1"),
    ],
)
def test_rescoring_by_nothing_or_by_two_things_is_refused(
    study: Path, program: Program, options: list[str], words: str
) -> None:
    done = program("study", "rescore", "first", *options, "--results-dir", study)
    done.assert_one_clear_line(words)


def test_answers_that_do_not_give_what_a_record_says_are_not_scored(
    study: Path, program: Program
) -> None:
    path = sorted((study / "data" / "first" / "trials").glob("*/record.json"))[0]
    content = path.read_text()
    record = json.loads(content)
    record["result"]["metrics"]["spelling/accuracy"] = 0.999
    path.write_text(json.dumps(record))
    done = program("study", "rescore", "first", "--focus", "transfer", "--results-dir", study)
    path.write_text(content)
    done.assert_one_clear_line("spelling/accuracy", "0.999", "one of them was changed")


@pytest.mark.slow
def test_the_test_split_is_read_once_for_each_reported_configuration(
    study: Path, program: Program
) -> None:
    command = ("study", "test", "first", "--quiet", "--json", "--results-dir", study)
    first = program(*command)
    assert first.returncode == 0, first.stderr
    events = study / "data" / "first" / "events.jsonl"
    reads = [e for e in files.read_json_lines(events) if e["event"] == "test_read"]
    answer = json.loads(first.stdout)
    assert len(reads) == len(answer) in (1, 2)
    assert program(*command).stdout == first.stdout
    assert reads == [e for e in files.read_json_lines(events) if e["event"] == "test_read"]
    # Other words than those that chose.
    (seed, results), *_ = answer[0]["seeds"].items()
    assert results["spelling"]["tuned"]["num_items"] == 90
    key = files.read_json(study / "data" / "first" / "trials" / seed / "record.json")["result"]
    asked = (study / "data" / "trainings" / key["training_key"] / "evaluations").glob("*")
    assert len(list(asked)) == 2


def test_an_export_opens_in_optunas_dashboard_on_this_machine_alone(
    study: Path, program: Program
) -> None:
    done = program("study", "dashboard", "first", "--export-only", "--results-dir", study)
    assert "wrote 4 finished trials" in done.stdout
    database = study / "data" / "first" / "study.db"
    assert database.stat().st_size > 0
    # It is an export: deleting it loses nothing.
    database.unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = subprocess.Popen(
        [
            *(sys.executable, "-m", "tuning", "study", "dashboard", "first"),
            *("--port", str(port), "--results-dir", str(study)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        answer = answer_of(f"http://127.0.0.1:{port}/api/studies", served)
        (summary,) = answer["study_summaries"]
        assert summary["study_name"] == "first"
        trials = answer_of(f"http://127.0.0.1:{port}/api/studies/{summary['study_id']}", served)
        assert [t["state"] for t in trials["trials"]] == ["Complete"] * 4
        assert all(len(t["values"]) == 2 for t in trials["trials"])
        listening = [c for c in connections(served.pid) if c.laddr.port == port]
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    finally:
        # Not SIGINT: where tests run in the background of a shell, that is ignored.
        served.terminate()
        served.wait(timeout=20)


def connections(pid: int) -> list[Any]:
    import psutil

    return [c for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"]


def answer_of(url: str, process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.loads(answer.read())
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


# --- cleaning -----------------------------------------------------------------------------------


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    """Return a copy of the results that a test may spoil."""
    import shutil

    place = tmp_path / "copied"
    shutil.copytree(study, place)
    return place


def test_cleaning_removes_what_is_half_written_and_nothing_else(
    copied: Path, program: Program
) -> None:
    training = next(p for p in (copied / "data/trainings").glob("*") if (p / "adapters").is_dir())
    before = files_below(copied)
    (training / "checkpoints" / ".step_3.partial").mkdir()
    (training / "checkpoints" / ".step_3.partial" / "tensors").write_text("half")
    (copied / "data/first/trials/.record.json.x").write_text("half")
    listed = program("study", "clean", "first", "--dry-run", "--results-dir", copied)
    assert "2 files and folders" in listed.stdout
    assert program("study", "clean", "first", "--yes", "--results-dir", copied).returncode == 0
    assert files_below(copied) == before


def test_a_whole_study_is_removed_with_trainings_that_no_other_asks_for(
    copied: Path, program: Program
) -> None:
    done = program("study", "clean", "first", "--whole", "--results-dir", copied, typed="n\n")
    assert done.returncode == 1
    assert (copied / "data" / "first").is_dir()
    others = sorted(p.name for p in (copied / "data").glob("first_*"))
    done = program("study", "clean", "first", "--whole", "--yes", "--results-dir", copied)
    assert done.returncode == 0, done.stderr
    assert not (copied / "data" / "first").exists()
    kept = [p for p in (copied / "data/trainings").glob("*") if (p / "adapters").is_dir()]
    # A rescored study refers to the same trainings.
    assert bool(kept) == bool(others)


def test_a_study_that_runs_is_not_cleaned(copied: Path, program: Program) -> None:
    (copied / "data/first/.x.partial").write_text("half")
    with files.exclusive_lock(copied / "data/first/.lock", "the study"):
        done = program("study", "clean", "first", "--yes", "--results-dir", copied)
    assert done.returncode == 2
    assert "another process is working on study first" in done.stderr


DAMAGE = {
    "events.jsonl": [
        {"event": "ended", "at": 5, "trial_id": "0000-f6fa7209", "seconds": "abc", "how": 3},
        {"event": "pruning", "at": "x", "trial_id": "0000-f6fa7209"},
        {"event": "proposed", "trial_id": "0000-f6fa7209", "parameters": 5, "seed": "q"},
        {"trial_id": "0000-f6fa7209"},
    ],
    "progress.jsonl": [{"step": 3}, {"step": "x", "kind": "train"}, {"step": 3, "kind": "train"}],
}


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, lines in DAMAGE.items() for line in lines]
)
def test_a_damaged_line_is_named_with_its_number(
    copied: Path, program: Program, name: str, line: dict[str, Any]
) -> None:
    commands = [["study", "resume", "first", "--quiet"]]
    if name == "events.jsonl":
        path = copied / "data" / "first" / name
        commands.append(["study", "status", "first"])
    else:
        (record,) = (copied / "data" / "first" / "trials").glob("0000-*/record.json")
        key = files.read_json(record)["result"]["training_key"]
        path = copied / "data" / "trainings" / key / name
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    number = len(path.read_text().splitlines())
    for command in commands:
        done = program(*command, "--results-dir", copied)
        assert done.returncode == 2, command
        assert f"{path} line {number} is damaged" in done.stderr
        assert "Traceback" not in done.stderr


def test_records_tell_how_trials_ended_whose_events_are_lost(
    copied: Path, program: Program
) -> None:
    ask = ("study", "status", "first", "--json", "--results-dir", copied)
    before = json.loads(program(*ask).stdout)
    events = copied / "data" / "first" / "events.jsonl"
    for content in ("", events.read_text().splitlines(keepends=True)[0]):
        events.write_text(content)
        after = json.loads(program(*ask).stdout)
        assert after["counts"] == before["counts"] == {"completed": 4}
        for old, new in zip(before["trials"], after["trials"], strict=True):
            assert new["seconds"] == pytest.approx(old["seconds"], abs=15)
            assert {**old, "seconds": new["seconds"]} == new


@pytest.mark.parametrize("content", ["{}", "name: [", "name: first"])
def test_a_damaged_study_can_be_removed(copied: Path, program: Program, content: str) -> None:
    (copied / "data" / "first" / "study.yaml").write_text(content)
    done = program("study", "status", "first", "--results-dir", copied)
    done.assert_one_clear_line("study.yaml is damaged")
    assert "pydantic" not in done.stderr
    removed = program("study", "clean", "first", "--whole", "--yes", "--results-dir", copied)
    assert removed.returncode == 0, removed.stderr
    assert not (copied / "data" / "first").exists()


def test_a_folder_without_studies_says_so(tmp_path: Path, program: Program) -> None:
    done = program("study", "list", "--results-dir", tmp_path / "none")
    assert f"no studies in {tmp_path / 'none'}" in done.stdout
    program("study", "status", "x", "--results-dir", tmp_path / "none").assert_one_clear_line(
        "there is none"
    )


def test_a_study_whose_settings_are_gone_is_not_called_unknown(
    copied: Path, program: Program
) -> None:
    (copied / "data" / "first" / "study.yaml").unlink()
    for command in ("status", "resume", "stop"):
        done = program("study", command, "first", "--results-dir", copied)
        done.assert_one_clear_line("study.yaml is gone", "the command that began the study")
    listed = program("study", "list", "--results-dir", copied)
    assert listed.returncode == 2
    assert "study.yaml is gone" in listed.stderr


@pytest.fixture
def failing(tmp_path: Path) -> tuple[Path, Path]:
    """Return a space of two trials, and words that are refused once a trial has begun."""
    words = tmp_path / "words.txt"
    words.write_text("lantern\nstrawberry\n")
    experiment = small_mapping()
    for key in ("experiment_name", "timestamp"):
        del experiment[key]
    space = tmp_path / "space.yaml"
    described = {"strategy": "listed", "replicates_of_default": 2, "experiment": experiment}
    space.write_text(yaml.safe_dump(described))
    return space, words


def test_a_study_in_which_all_trials_fail_says_so_and_fails(
    failing: tuple[Path, Path], tmp_path: Path, program: Program, warm_studies: None
) -> None:
    space, words = failing
    given = f"spelling_config.word_list={words}"
    run = ("study", "run", "--space", space, "--name", "f", "--quiet", given)
    for _ in range(2):
        done = program(*run, "--results-dir", tmp_path / "r")
        done.assert_one_clear_line(
            "2 of 2 trials failed, the last one with DataError", str(words), "--retry-failed"
        )
    told = program("recommend", "f", "--dry-run", "--results-dir", tmp_path / "r")
    told.assert_one_clear_line("no trial of 2 has completed", "resume f --retry-failed")
    listed = program("study", "list", "--results-dir", tmp_path / "r").stdout
    assert listed == "f: 2 of 2 trials finished: 2 failed\n"
    (row,) = json.loads(program("study", "list", "--json", "--results-dir", tmp_path / "r").stdout)
    assert row == dict(study="f", finished=2, planned=2, completed=0, pruned=0, failed=2)


def test_mistakes_are_told_without_words_of_the_libraries(
    copied: Path, program: Program, failing: tuple[Path, Path]
) -> None:
    plan = ("study", "run", "--space", failing[0], "--dry-run")
    for more, says in (
        (("--focus", "speling"), "'speling' is not one of"),
        (("--num-trials", "0"), "must be greater than or equal to 1"),
    ):
        done = program(*plan, *more)
        done.assert_one_clear_line(says)
        assert "Value error" not in done.stderr
    (record,) = (copied / "data" / "first" / "trials").glob("0000-*/record.json")
    record.write_text("[]")
    done = program("study", "list", "--results-dir", copied)
    assert f"{record} is damaged: must be a" in done.stderr


def test_words_that_cannot_be_read_are_refused_before_anything_runs(
    failing: tuple[Path, Path], tmp_path: Path, program: Program
) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    run = ("study", "run", "--name", "f", "--results-dir", tmp_path / "r")
    given = f"spelling_config.word_list={empty}"
    program(*run, "--space", failing[0], given).assert_one_clear_line("empty.txt")
    space = yaml.safe_load(failing[0].read_text())
    space |= {"strategy": "grid", "HPARAM_CANDIDATES": {"spelling_config.word_list": [str(empty)]}}
    failing[0].write_text(yaml.safe_dump(space))
    program(*run, "--space", failing[0], "--dry-run").assert_one_clear_line("empty.txt")
    assert not (tmp_path / "r").exists()


def test_early_stopping_is_told_when_a_study_begins_and_can_still_do_without(
    failing: tuple[Path, Path], tmp_path: Path, program: Program, warm_studies: None
) -> None:
    space, words = failing
    run = ("study", "run", "--space", space, "--name", "f", f"spelling_config.word_list={words}")
    said = [program(*run, "--results-dir", tmp_path / "r").stderr for _ in range(2)]
    note = "note: poor trials are stopped early (poor_on_both, by a monitor of"
    assert [note in stderr for stderr in said] == [True, False]


def test_the_cluster_of_the_environment_is_asked(
    failing: tuple[Path, Path], tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    run = ("study", "run", "--space", failing[0], "--name", "f", "--quiet", "--backend", "ray")
    done = program(*run, "--results-dir", tmp_path / "r")
    done.assert_one_clear_line("no Ray cluster at 127.0.0.1:1")


def test_some_failures_are_said_beside_the_ranking(
    failing: tuple[Path, Path], tmp_path: Path, program: Program, warm_studies: None
) -> None:
    space, words = failing
    also = {**yaml.safe_load(space.read_text()), "replicates_of_default": 1}
    also["strategy"] = "one_at_a_time"
    also["HPARAM_CANDIDATES"] = {"spelling_config.word_list": [str(words)]}
    space.write_text(yaml.safe_dump(also))
    run = ("study", "run", "--space", space, "--name", "f", "--quiet")
    done = program(*run, "--results-dir", tmp_path / "r")
    assert done.returncode == 0
    assert "best configuration" in done.stdout
    assert done.stderr.startswith("tuning: 1 of 2 trials failed, the last one with DataError")
    listed = program("study", "list", "--results-dir", tmp_path / "r").stdout
    assert listed == "f: 2 of 2 trials finished: 1 completed, 1 failed\n"


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm_studies")
@pytest.mark.nightly
def test_a_budget_ends_a_run_and_resume_goes_on(tmp_path: Path, program: Program) -> None:
    few = (f"evaluation_config.{name}" for name in ("num_words=10", "num_generated_items=0"))
    run = ("study", "run", "--space", "quick", "--name", "q", "--workers", "1", "--quiet", *few)
    run += ("--step-scale", "0.003")
    done = program(*run, "--max-time", "0.1s", "--results-dir", tmp_path / "r")
    assert done.returncode == 0
    assert "the time budget of 0.1 s is used up" in done.stderr
    assert f"tuning study resume q --results-dir {tmp_path / 'r'}" in done.stderr
    done = program("study", "resume", "q", "--quiet", "--json", "--results-dir", tmp_path / "r")
    assert json.loads(done.stdout)["num_completed"] == 4
    other = program(*run, "--threads", "7", "--results-dir", tmp_path / "r")
    other.assert_one_clear_line("--threads must be", "as study q began, got 7")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-time", "soon"], "--max-time must be a number with s, m, h or d"),
        (["--max-cost", "3"], "--max-cost needs --hourly-price"),
        (["--ray-address", "auto"], "--ray-address belongs to --backend ray"),
        (["--pruning", "medain"], "median"),
        (["--workers", "0"], "greater than or equal to 1"),
        (["--backend", "slurm"], "local"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    program: Program, options: list[str], words: str
) -> None:
    done = program("study", "run", "--space", "quick", *options)
    done.assert_one_clear_line(words)
    assert not Path("results").exists()


@pytest.mark.slow
def test_stop_asks_a_driver_in_another_process(tmp_path: Path, program: Program) -> None:
    root = ResultsRoot(tmp_path / "results")
    driver = subprocess.Popen(
        [
            *(sys.executable, "-m", "tuning", "study", "run", "--space", "demo", "--name", "d"),
            *("--workers", "1", "--quiet", "--results-dir", str(root.root)),
        ],
        stderr=subprocess.PIPE,
        env={**os.environ},
    )
    deadline = time.monotonic() + 120
    while not list(root.trainings.glob("*/progress.jsonl")):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    status = json.loads(
        program("study", "status", "d", "--json", "--results-dir", root.root).stdout
    )
    assert status["is_running"]
    assert status["counts"]["running"] == 1
    done = program("study", "stop", "d", "--results-dir", root.root)
    assert "study d has stopped" in done.stdout
    assert driver.wait(timeout=30) == 130
