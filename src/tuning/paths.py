"""Every path of a result or configuration is built here, once.

Names become paths only after `checked_name`, so no name can leave its folder.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tuning.errors import NameRefusedError, shown

DEFAULT_RESULTS_DIR = Path("results/tuning")
DEFAULT_CONFIG_DIR = Path("configs/hyperparameters")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
RESERVED_STUDY_NAMES = frozenset({"trainings"})


def checked_name(name: str, what: str = "name") -> str:
    """Return `name` if it is safe as a file name.

    Args:
        name: What the user wrote.
        what: What it names, for the message.

    Raises:
        NameRefusedError: It is empty, too long, or holds a character that could leave the folder.
    """
    if not _NAME.fullmatch(name):
        raise NameRefusedError(
            f"{what} must be 1 to 128 letters, digits, '.', '_' or '-', "
            f"and begin with a letter or digit, got {shown(name, limit=200)}"
        )
    return name


def shipped_config_dir() -> Path:
    """Return the folder of the configurations that ship with the program."""
    package = Path(__file__).parent
    installed = package / "configs" / "hyperparameters"
    return installed if installed.is_dir() else package.parents[1] / "configs" / "hyperparameters"


def user_path(text: str) -> Path:
    """Return the path that a user wrote, ``~`` expanded where there is such a home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def model_cache() -> Path:
    """Return the folder of models that `tuning models fetch` made: TUNING_CACHE moves it."""
    own = os.environ.get("TUNING_CACHE")
    if own:
        return user_path(own) / "models"
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return user_path(shared) / "tuning" / "models"


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """The files of one training: what was trained, shared by every study that asks for it."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration that made the folder."""
        return self.root / "config.yaml"

    @property
    def identity(self) -> Path:
        """Hashes that a continuation must match."""
        return self.root / "identity.json"

    @property
    def progress(self) -> Path:
        """A line for each evaluation and for every N steps of loss."""
        return self.root / "progress.jsonl"

    @property
    def attempts(self) -> Path:
        """A line for each start and end of work on the training."""
        return self.root / "attempts.jsonl"

    @property
    def control(self) -> Path:
        """What the driver wishes of the attempt under way, and which attempt that is."""
        return self.root / "control.json"

    @property
    def log(self) -> Path:
        """What the training said."""
        return self.root / "log.txt"

    @property
    def lock(self) -> Path:
        """Held while a process works on the training."""
        return self.root / ".lock"

    @property
    def driver_lock(self) -> Path:
        """Held by the driver whose study has the training made: others wait, and take nothing."""
        return self.root / ".driver.lock"

    @property
    def checkpoints(self) -> Path:
        """Folders `step_<n>` with adapter, optimiser state and counters."""
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Return the checkpoint after `step` optimizer steps."""
        return self.checkpoints / f"step_{step}"

    def adapter(self, step: int) -> Path:
        """Return the adapter, in PEFT's format, after `step` optimizer steps."""
        return self.root / "adapters" / f"step_{step}"

    def certificate(self, name: str) -> Path:
        """Return the file of a proof that one pass is greedy decoding."""
        return self.root / "certificates" / f"{checked_name(name, 'certificate')}.json"

    def evaluation(self, evaluation_key: str) -> Path:
        """Return the folder of one evaluation."""
        return self.root / "evaluations" / evaluation_key

    def thinking(self, evaluation_key: str) -> Path:
        """Return the file of an evaluation's free answers with thinking on and off."""
        return self.evaluation(evaluation_key) / "thinking.jsonl"

    def answers_in_both_modes(self) -> list[Path]:
        """Return such a file of every evaluation that has one."""
        return sorted(self.root.glob("evaluations/*/thinking.jsonl"))


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """The files of one trial: what a study asked for and what came of it."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration of the trial."""
        return self.root / "config.yaml"

    @property
    def record(self) -> Path:
        """The outcome, in the sections `result` and `execution`."""
        return self.root / "record.json"

    @property
    def results(self) -> Path:
        """The four old names, for scripts that know them."""
        return self.root / "results.yaml"


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The files of one study."""

    root: Path

    @property
    def spec(self) -> Path:
        """What the study was asked to do."""
        return self.root / "study.yaml"

    @property
    def events(self) -> Path:
        """The append-only list of what happened."""
        return self.root / "events.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the one driver of the study."""
        return self.root / ".lock"

    @property
    def control(self) -> Path:
        """Asks the driver, wherever it runs, to stop."""
        return self.root / "control.json"

    @property
    def final_test(self) -> Path:
        """What reported configurations score on the test split."""
        return self.root / "final_test.json"

    @property
    def optuna(self) -> Path:
        """An export for Optuna's dashboard; never read back."""
        return self.root / "study.db"

    @property
    def trials(self) -> Path:
        """A folder for each trial."""
        return self.root / "trials"

    def trial(self, trial_id: str) -> TrialFolder:
        """Return the folder of one trial."""
        return TrialFolder(self.trials / checked_name(trial_id, "trial id"))


@dataclass(frozen=True, slots=True)
class CloudTaskFolder:
    """The files of one task in the cloud: its Studio, its jobs, what they cost."""

    root: Path

    @property
    def studio(self) -> Path:
        """Which Studio belongs to the task."""
        return self.root / "studio.json"

    @property
    def phases(self) -> Path:
        """A line for each machine that the Studio began or ended to have."""
        return self.root / "phases.jsonl"

    @property
    def jobs(self) -> Path:
        """A line for everything that happened to a job."""
        return self.root / "jobs.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the Studio or submits jobs."""
        return self.root / ".lock"


@dataclass(frozen=True, slots=True)
class TokenAnalysisFolder:
    """The files of the token analysis; the last one that ran."""

    root: Path

    @property
    def stats(self) -> Path:
        """All numbers."""
        return self.root / "tokenizer_stats.json"

    @property
    def multi_token_words(self) -> Path:
        """Words of several tokens, with these."""
        return self.root / "multi_token_words.json"

    @property
    def words(self) -> Path:
        """A row for each word."""
        return self.root / "words.parquet"

    @property
    def english_vocab(self) -> Path:
        """The English part of the vocabulary: each token's string and its id."""
        return self.root / "english_tokens" / "english_vocab.json"

    @property
    def english_meta(self) -> Path:
        """By which rule it was chosen, and what was counted."""
        return self.root / "english_tokens" / "english_vocab.meta.json"

    @property
    def thinking(self) -> Path:
        """Thinking compared with non-thinking."""
        return self.root / "thinking.json"

    def table(self, name: str) -> Path:
        """Return the file of a table."""
        return self.root / f"{checked_name(name, 'table')}.csv"


@dataclass(frozen=True, slots=True)
class ResultsRoot:
    """The one root that all results hang off."""

    root: Path = DEFAULT_RESULTS_DIR

    @property
    def data(self) -> Path:
        """Trainings and studies."""
        return self.root / "data"

    def worker_log(self, number: int) -> Path:
        """Return the file of what a worker process says."""
        return self.root / "logs" / f"worker_{number}.log"

    def mirror_log(self, study: str) -> Path:
        """Return the file of what the mirror process of a study says."""
        return self.root / "logs" / f"wandb_{checked_name(study, 'study')}.log"

    @property
    def best_configs(self) -> Path:
        """Configurations that won a study."""
        return self.root / "configs"

    def best_config(self, study: str, place: int | None = None) -> Path:
        """Return the file of a study's best configuration, or of one on its front."""
        suffix = "best" if place is None else f"front_{place}"
        return self.best_configs / f"{checked_name(study, 'study name')}_{suffix}.yaml"

    @property
    def figures(self) -> Path:
        """Pictures."""
        return self.root / "figures"

    @property
    def transfer(self) -> Path:
        """Transfer analyses."""
        return self.root / "transfer"

    def analysis(self, study: str) -> Path:
        """Return the file of a study's analysis."""
        return self.transfer / f"{checked_name(study, 'study name')}_analysis.json"

    def recommendations(self, study: str) -> Path:
        """Return the file of what to try next in a study."""
        return self.transfer / f"{checked_name(study, 'study name')}_recommendations.json"

    @property
    def reports(self) -> Path:
        """HTML reports."""
        return self.root / "reports"

    @property
    def wandb(self) -> Path:
        """Offline runs of Weights & Biases, and what is known of each."""
        return self.root / "wandb"

    @property
    def cloud(self) -> Path:
        """A folder for each task in the cloud."""
        return self.root / "lightning"

    def cloud_task(self, task: str) -> CloudTaskFolder:
        """Return the folder of a task in the cloud."""
        return CloudTaskFolder(self.cloud / checked_name(task, "task"))

    @property
    def token_analysis(self) -> TokenAnalysisFolder:
        """What is known of a vocabulary, and of how it cuts words."""
        return TokenAnalysisFolder(self.root / "token_analysis")

    @property
    def trainings(self) -> Path:
        """All trainings of all studies."""
        return self.data / "trainings"

    def training(self, training_key: str) -> TrainingFolder:
        """Return the folder of one training."""
        return TrainingFolder(self.trainings / checked_name(training_key, "training key"))

    def study(self, name: str) -> StudyFolder:
        """Return the folder of a study.

        Raises:
            NameRefusedError: The name is unsafe or reserved.
        """
        if checked_name(name, "study name") in RESERVED_STUDY_NAMES:
            raise NameRefusedError(f"study name {name!r} is reserved; choose another")
        return StudyFolder(self.data / name)
