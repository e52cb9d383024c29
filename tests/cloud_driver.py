"""A driver of a study in the cloud, for a process that tests may kill; and the runner of its jobs."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import simulated_training
from tuning.cli import options
from tuning.cli.cloud_study import run_in_cloud
from tuning.cli.study_request import StudyRequest, make_spec
from tuning.jobs import How, Job, Tell
from tuning.paths import ResultsRoot

RUNNER = "cloud_driver:run"
FAILS_AT = 1e-3


def run(job: Job, results: Path, tell: Tell) -> tuple[How, str]:
    """Run a simulated training; one learning rate never works."""
    if job.config.training_config.learning_rate == FAILS_AT:
        text = "the loss is nan at step 1"
        simulated_training.write_simulated_failure(
            job, ResultsRoot(results), "NotANumberError", text
        )
        return How.RETURNED, ""
    return simulated_training.run(job, results, tell)


def main() -> None:
    """Run the default design, one seed each: 31 trials; print what came of each."""
    results, configs, scale = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    space = sys.argv[4] if len(sys.argv) > 4 else "default"
    request = StudyRequest(
        name="study",
        space=space,
        replicates=1,
        step_scale=scale,
        pruning="none",
        overrides=["models=tiny"],
        results_dir=results,
        config_dir=configs,
    )
    resources = options.Resources(
        backend=options.BackendName.LIGHTNING, threads=1, config_dir=configs
    )
    outcome = run_in_cloud(
        make_spec(request), ResultsRoot(results), resources, quiet=False, again="", runner=RUNNER
    )
    told = [dataclasses.asdict(record) for record in outcome.records]
    print(json.dumps({"end": outcome.end, "message": outcome.message, "records": told}))


if __name__ == "__main__":
    main()
