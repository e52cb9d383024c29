"""Orders of jobs, ledgers, settings and plans of the cloud: laws that need no cloud."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from planted_records import record_of, spec_of, write_study
from tuning import files
from tuning.analysis.impact import expected_impacts
from tuning.backends.cloud_job import Payload
from tuning.cloud_ledger import JobSpec, Ledger, Stage
from tuning.cloud_plan import plan_jobs, siblings
from tuning.cloud_settings import (
    PriceTable,
    is_same_machine,
    read_settings,
    read_template,
    template_names,
)
from tuning.errors import ConfigError, NotFoundError, ResultsError
from tuning.fingerprint import training_key
from tuning.jobs import Job
from tuning.lightning_jobs import check_needs, in_order, precedence
from tuning.paths import ResultsRoot
from tuning.records import write_record

PRICES = {"CPU": 0.5, "T4": 1.0, "A100": 5.0}


def specs_of(draw: Any) -> list[JobSpec]:
    """Draw jobs that need only earlier ones, then shuffle them."""
    count = draw(st.integers(1, 12))
    specs = []
    for number in range(count):
        needs = draw(st.sets(st.integers(0, max(0, number - 1)), max_size=3)) if number else set()
        specs.append(
            JobSpec(
                name=f"job{number}",
                command="",
                machine=draw(st.sampled_from(list(PRICES))),
                needs=tuple(f"job{n}" for n in sorted(needs)),
                priority=draw(st.sampled_from([0.0, 1.0, 2.0])),
                hours=draw(st.sampled_from([None, 0.5, 1.0])),
            )
        )
    return draw(st.permutations(specs))  # type: ignore[no-any-return]


jobs_without_circles = st.composite(specs_of)()


@given(jobs_without_circles)
def test_jobs_come_after_what_they_need_and_otherwise_by_worth_then_cost(
    specs: list[JobSpec],
) -> None:
    order = in_order(specs, PRICES.__getitem__)
    assert sorted(s.name for s in order) == sorted(s.name for s in specs)
    places = {spec.name: place for place, spec in enumerate(specs)}
    done: set[str] = set()
    left = list(specs)
    for spec in order:
        ready = [s for s in left if set(s.needs) <= done]
        best = min(
            ready,
            key=lambda s: precedence(
                s.priority, None if s.hours is None else s.hours * PRICES[s.machine], places[s.name]
            ),
        )
        assert spec is best
        left.remove(spec)
        done.add(spec.name)


@given(jobs_without_circles, st.data())
def test_a_circle_is_refused_and_told(specs: list[JobSpec], data: st.DataObject) -> None:
    length = data.draw(st.integers(1, len(specs)))
    ring = [s.name for s in specs[:length]]
    changed = [
        s.model_copy(update={"needs": (*s.needs, ring[(ring.index(s.name) + 1) % length])})
        if s.name in ring
        else s
        for s in specs
    ]
    with pytest.raises(ConfigError, match="in a circle: (.+)") as told:
        check_needs(changed)
    names = str(told.value).partition("circle: ")[2].split(" -> ")
    assert names[0] == names[-1]
    needs = {s.name: s.needs for s in changed}
    assert all(after in needs[before] for before, after in zip(names, names[1:], strict=False))


def test_two_jobs_of_one_name_are_refused() -> None:
    spec = JobSpec(name="a", command="", machine="CPU")
    with pytest.raises(ConfigError, match="two jobs are called a"):
        check_needs([spec, spec])


# --- the ledger ---------------------------------------------------------------------------------


def test_a_ledger_tells_costs_of_every_submission(tmp_path: Path) -> None:
    folder = ResultsRoot(tmp_path).cloud_task("task")
    ledger = Ledger.read(folder)
    ledger.begin()
    spec = JobSpec(name="a", command="", machine="T4")
    ledger.note("planned", job="a", spec=spec.model_dump(mode="json"))
    line = {"job": "a", "cloud_name": "x", "machine": "T4", "per_hour": 3600.0}
    ledger.note("submitting", number=1, spot=True, **line)
    ledger.note("submitted", job="a", cloud_name="x", cloud_id="j-1")
    ledger.note("running", job="a", started=100.0)
    ledger.note("lost", job="a", message="gone")
    ledger.note("waiting", job="a", started=100.0, stopped=110.0)
    ledger.note("submitting", number=2, **{**line, "cloud_name": "y", "per_hour": 7200.0})
    ledger.note("submitted", job="a", cloud_name="y", cloud_id="j-2")
    ledger.note("ended", job="a", stage="done", started=200.0, stopped=203.0)
    assert ledger.cost() == pytest.approx(10 + 6)
    ledger.note("settled", job="a", number=2, cost=5.5)
    again = Ledger.read(folder)
    assert again.cost() == ledger.cost() == pytest.approx(15.5)
    run = again.runs["a"]
    assert (run.stage, run.num_lost, again.id) == (Stage.DONE, 1, ledger.id)
    # A torn last line is what a kill leaves.
    with folder.jobs.open("ab") as file:
        file.write(b'{"event": "ended", "jo')
    assert Ledger.read(folder).cost() == ledger.cost()


@pytest.mark.parametrize(
    "line",
    [
        {"event": "ended", "at": 1.0, "job": "a", "stage": "perhaps"},
        {"event": "submitted", "at": 1.0, "job": "nobody", "cloud_name": "x", "cloud_id": "y"},
        {"event": "planned", "at": 1.0, "job": "a", "spec": {"name": "../a"}},
        {"event": "running", "at": "now", "job": "a"},
    ],
)
def test_a_damaged_ledger_is_one_clear_line(tmp_path: Path, line: Mapping[str, Any]) -> None:
    folder = ResultsRoot(tmp_path).cloud_task("task")
    files.make_folder(folder.root)
    folder.jobs.write_text(json.dumps(line) + "\n")
    with pytest.raises(ResultsError, match=r"jobs\.jsonl"):
        Ledger.read(folder)


# --- settings -----------------------------------------------------------------------------------


def test_shipped_settings_hold_and_every_template_can_be_read() -> None:
    settings = read_settings()
    machines = {name: phase.machine for name, phase in settings.phases.items()}
    assert machines == {"develop": "CPU", "test": "T4", "train": "A100"}
    names = {"single", "one_at_a_time", "grid", "sweep_agent", "evaluation", "token_analysis"}
    assert names <= set(template_names())
    for name in template_names():
        template = read_template(name)
        for job in template.jobs.values():
            settings.prices.per_hour(job.machine)


def test_an_old_table_of_prices_is_warned_of() -> None:
    table = {"source": "test", "machines": {"T4": {"AWS": 1.0, "GCP": 0.5}}}
    today = datetime.now(UTC).date()
    old = PriceTable.model_validate({**table, "as_of": today - timedelta(days=31)})
    new = PriceTable.model_validate({**table, "as_of": today - timedelta(days=30)})
    assert "31 days old: check them" in old.says
    assert "days old" not in new.says
    # Where the cloud is not known, the dearest: an estimate must not flatter.
    assert (new.per_hour("t4"), new.per_hour("T4", "GCP")) == (1.0, 0.5)
    with pytest.raises(NotFoundError, match=r"no price of machine 'T5' in prices\.yaml; known: T4"):
        new.per_hour("T5")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scheduler", {"min_jobs": 5, "max_jobs": 2}, "min_jobs must be at most max_jobs"),
        ("scheduler", {"max_job": 2}, "no such key; did you mean max_jobs?"),
        ("studio", {"shared_folder": "relative/x"}, "must be an absolute path"),
        ("studio", {"drive_folder": "../x"}, "must be a path on the drive"),
        ("studio", {"deadlines": {"strat": 1}}, "no such key; did you mean start?"),
        ("phases", {"test": {"machine": "T4", "hours": 0}}, "hours"),
        ("studio", {"setup": ["{oops}"]}, r"\{oops\} cannot be filled in"),
        ("studio", {"teamspace": "a/b/c"}, "must be OWNER/NAME"),
        ("prices", {"as_of": "2999-01-01", "source": "x", "machines": {}}, "must not lie in the"),
        ("prices", {"as_of": "2026-01-01", "source": "x", "machines": {"T4": {}}}, "T4"),
        ("prices", {"as_of": "yesterday", "source": "x", "machines": {}}, "as_of"),
        ("prices", {"as_of": "2026-01-01", "source": "x", "machines": {"T4": {"A": -1}}}, "T4"),
    ],
)
def test_settings_that_break_a_law_are_told_with_their_file(
    tmp_path: Path, name: str, content: Mapping[str, Any], message: str
) -> None:
    folder = tmp_path / "lightning"
    folder.mkdir()
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=rf"{name}\.yaml.*{message}"):
        read_settings([tmp_path])


# --- plans --------------------------------------------------------------------------------------

SPACE = {
    "HPARAM_CANDIDATES": {
        "lora_r": [4, 8, 32],
        "position_task_weight": [0.3, 0.7],
        "gpu_tier": ["t4", "a100"],
    },
    "replicates_of_default": 1,
}


def test_a_plan_has_a_job_for_each_training_on_the_machine_of_its_configuration(
    tmp_path: Path,
) -> None:
    spec, root, settings = spec_of(SPACE), ResultsRoot(tmp_path), read_settings()
    plan = plan_jobs(spec, root, settings)
    known = list(spec.plan().known())
    assert len(plan.jobs) == len({training_key(p.config) for p in known})
    # Weights and tiers train the same: they come along with the default's job.
    (shared,) = [job for job in plan.jobs if len(job.proposals) > 1]
    assert len(shared.proposals) == 5
    assert {job.machine for job in plan.jobs} == {"CPU"}
    assert sorted(plan.order) == list(range(len(known)))
    assert plan.cost == pytest.approx(sum(j.hours * 0.44 for j in plan.jobs if j.hours))
    # The default first, which all others are compared with; then the cheap ones.
    assert plan.jobs[0] is shared
    costs = [job.cost for job in plan.jobs[1:]]
    assert costs == sorted(costs)
    assert plan.hours is not None
    assert plan.clock_hours is not None
    assert plan.hours / plan.at_once <= plan.clock_hours <= plan.hours

    on_gpu = plan_jobs(spec, root, settings, machine="A100")
    assert {job.machine for job in on_gpu.jobs} == {"A100"}

    first = known[0]
    write_record(root.study(spec.name).trial(first.trial_id), record_of(first, 0.5))
    left = plan_jobs(spec, root, settings)
    assert (left.num_trials, left.num_finished) == (len(known), 1)
    assert sorted(left.order) == list(range(len(known)))

    job = Job(study=spec.name, trial_id=first.trial_id, config=first.config)
    others = siblings(job, plan, root, spec)
    assert len(others) == 4
    assert {o.training_key for o in others} == {job.training_key}
    assert siblings(job.model_copy(update={"until": 4}), plan, root, spec) == []


def test_worth_comes_before_cost_and_is_explained(tmp_path: Path) -> None:
    spec, root, settings = spec_of(SPACE), ResultsRoot(tmp_path), read_settings()
    known = list(spec.plan().known())
    worth = {known[-1].trial_id: (0.5, "for a test"), known[1].trial_id: (2.0, "for another")}
    plan = plan_jobs(spec, root, settings, impacts=worth)
    first, *others = plan.jobs
    assert first.why == "the default, with which all others are compared: first"
    assert others[0].why == "for another"
    assert [job.impact for job in others] == sorted((j.impact for j in others), reverse=True)
    assert plan.jobs[-1].why == "nothing is known of its worth: cheap first"


def test_a_file_of_this_computer_is_refused(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("planet\n")
    experiment = {"spelling_config": {"word_list": str(words)}}
    spec = spec_of(SPACE, experiment=experiment)
    with pytest.raises(ConfigError, match="word_list must lie below /teamspace"):
        plan_jobs(spec, ResultsRoot(tmp_path), read_settings())


def test_expected_impact_is_what_the_model_of_recommendations_says(tmp_path: Path) -> None:
    space = {
        "HPARAM_CANDIDATES": {"lora_r": [4, 8, 16, 32], "learning_rate": [1e-4, 5e-4, 1e-3]},
        "replicates_of_default": 3,
    }
    spec, root = spec_of(space), ResultsRoot(tmp_path)
    with pytest.raises(NotFoundError):
        expected_impacts(root, "planted", [{}])

    def surface(proposal: Any) -> float:
        levels = {4: 0.2, 8: 0.3, 16: 0.4, 32: 0.42}
        return levels[proposal.config.lora_config.r] + 0.03 * proposal.seed

    write_study(root, spec, surface)
    found = expected_impacts(root, "planted", [{}, {"lora_r": 32}, {"lora_r": 4}])
    assert found is not None
    assert all(impact.points >= 0 for impact in found)
    assert "configurations of study planted" in found[0].why
    # What looks best and was seen once is worth more than what is surely poor.
    assert found[1].points > found[2].points


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("A100", "A100_80GB", True),
        ("a100_40gb_x_8", "A100_X_8", True),
        ("A100", "A100_X_8", False),
        ("CPU", "CPU_X_4", True),
        ("CPU", "CPU_X_8", False),
        ("T4", "L4", False),
        ("RTXP_6000", "RTXP_6000_X_2", False),
    ],
)
def test_kinds_of_machines(one: str, other: str, is_same: bool) -> None:
    assert is_same_machine(one, other) is is_same


def test_what_a_job_is_to_do_fits_into_a_variable_with_all_its_siblings(small_config: Any) -> None:
    job = Job(study="s", trial_id="0000-00000000", config=small_config(), seed=1)
    jobs = tuple(job.model_copy(update={"trial_id": f"{n:04d}-00000000"}) for n in range(65))
    payload = Payload(results="/shared/results", jobs=jobs)
    assert Payload.unpacked(payload.packed()) == payload
    # Linux takes 128 KiB; nobody says what the cloud does.
    assert len(payload.packed()) < 8192
