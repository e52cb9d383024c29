"""Lightning's own command line over our experiment files.

    python -m tuning.training.cli fit --config FILE [lora_config.r=8 ...] [--trainer.devices=2 ...]

`fit` trains, or goes on, in the folder that a trial of the same experiment uses, so `tuning trial`
and a study find its adapter. `validate` measures that adapter on the small suite that training is
watched with, `test` on the final one. Everything is said to Lightning as arguments: first what the
file says, then what the user says, which wins.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse.typing import register_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from tuning import files
from tuning.composition import load, overridden
from tuning.config import ExperimentConfig, build
from tuning.documents import read_document
from tuning.errors import ConfigError, NotFoundError, UserError, nearest
from tuning.evaluation.bench import load_bench
from tuning.fingerprint import training_identity
from tuning.memory import Machine, check_fits
from tuning.model.hub import found_or_fetched
from tuning.model.machine import default_threads, quiet_libraries, this_machine, threads
from tuning.paths import DEFAULT_CONFIG_DIR, DEFAULT_RESULTS_DIR, ResultsRoot, TrainingFolder
from tuning.training.callbacks import NotANumberError, StopOnSignal
from tuning.training.checkpoint import SafetensorsCheckpointIO, check_is_checkpoint
from tuning.training.cli_text import (
    accuracy_table,
    one_line,
    plain,
    told_plainly,
    without_secrets,
)
from tuning.training.datamodule import SpellingData, StepBatches
from tuning.training.module import SpellingModule
from tuning.training.run import (
    LIGHTNING_PRECISION,
    begin_progress,
    callbacks_of,
    claim,
    continue_from,
    fit,
    is_trained,
    note,
    save_adapter_of,
    trainer_arguments,
)

COMMANDS = ("fit", "validate", "test")

HELP = f"""\
usage: python -m tuning.training.cli {{fit,validate,test}} --config FILE [KEY=VALUE ...]

Lightning's command line over an experiment file; `fit --help` lists every option of the trainer.

  --config FILE         an experiment file, or what --print_config wrote
  KEY=VALUE             overrides, as everywhere: lora_config.r=8
  --results-dir DIR     root of all results (default: {DEFAULT_RESULTS_DIR})
  --config-dir DIR      where a file inherits from (default: {DEFAULT_CONFIG_DIR})
  --trainer.NAME=VALUE  any argument of Lightning's Trainer; wins over the file, and is recorded
  --ckpt_path DIR       a checkpoint of ours to go on from, or to measure
  --print_config        print all that Lightning is told, and stop

examples:
  python -m tuning.training.cli fit --config exp.yaml --trainer.devices=2
  python -m tuning.training.cli test --config exp.yaml
  torchrun --nproc-per-node=4 -m tuning.training.cli fit --config exp.yaml --trainer.devices=4
"""


class Experiment:
    """An experiment as jsonargparse passes it on: whole, and judged by our laws alone."""

    def __init__(self, config: ExperimentConfig) -> None:
        """Wrap a configuration."""
        self.config = config

    @staticmethod
    def read(value: Any) -> Experiment:
        """Return the experiment that an argument or a printed file says.

        Raises:
            ConfigError: It breaks a law.
        """
        data = json.loads(value) if isinstance(value, str) else value
        return Experiment(build(data, "model.experiment"))

    def as_data(self) -> dict[str, Any]:
        """Return it as a file holds it."""
        return self.config.model_dump(mode="json")


register_type(Experiment, Experiment.as_data, Experiment.read, type_check=isinstance)


def spelling_module(experiment: Experiment) -> SpellingModule:
    """Return the module of an experiment.

    Args:
        experiment: What an experiment file says, everything resolved.
    """
    return SpellingModule(experiment.config)


def spelling_data(experiment: Experiment) -> SpellingData:
    """Return the data of an experiment.

    Args:
        experiment: What an experiment file says, everything resolved.
    """
    return SpellingData(experiment.config)


class TuningCLI(LightningCLI):
    """One experiment under a trainer of the user's."""

    model: SpellingModule
    datamodule: SpellingData

    def __init__(self, args: ArgsType, told: Mapping[str, Any], root: ResultsRoot) -> None:
        """Parse, and run the subcommand.

        Args:
            args: The subcommand and its arguments.
            told: Arguments of the trainer that come from the experiment file.
            root: The results.
        """
        self.given: dict[str, Any] = {}
        """Arguments of the trainer that the user changed."""
        self.exit_code = 0
        self._told = told
        self._root = root
        quiet: dict[str, Any] = {"exit_on_error": False}
        super().__init__(
            spelling_module,
            spelling_data,
            save_config_callback=None,
            # Every random number of ours hangs off the experiment's own seed.
            seed_everything_default=False,
            parser_kwargs={**quiet, **{command: dict(quiet) for command in COMMANDS}},
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands, and arguments that are not the user's to give."""
        known = LightningCLI.subcommands()
        return {command: {*known[command], "weights_only"} for command in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Have one experiment serve both module and data."""
        parser.link_arguments("model.experiment", "data.experiment")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args`; Lightning's own way warns that the process has arguments too."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]

    def _parse_ckpt_path(self) -> None:
        """Refuse a checkpoint that is none of ours; Lightning would open it to look inside."""
        path = self.config[self.config["subcommand"]].get("ckpt_path")
        if path is not None:
            check_is_checkpoint(Path(path))

    # --- what the user changed ----------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Move what the user changed of the trainer, and the experiment has too, to that."""
        asked = vars(self._get(self.config, "trainer"))
        parser = self._parser(self.subcommand)
        usual = {name: parser.get_default(f"trainer.{name}") for name in asked}
        told = {**usual, **self._told}
        self.given = {name: value for name, value in asked.items() if value != told[name]}
        if "devices" in self._told and str(asked["devices"]) != str(self._told["devices"]):
            raise ConfigError(
                f"torchrun has started {self._told['devices']} processes on this machine, and "
                f"--trainer.devices says {asked['devices']}; leave it out"
            )
        changes = [
            f"{_OF_EXPERIMENT[name]}={_in_our_words(name, value)}"
            for name, value in self.given.items()
            if name in _OF_EXPERIMENT
        ]
        if self._get(self.config, "seed_everything") is not False:
            raise ConfigError(
                "seed_everything: every random number hangs off the experiment's own seed; give "
                "training_config.seed=N"
            )
        model, data = self._get(self.config, "model"), self._get(self.config, "data")
        self.experiment = overridden(model["experiment"].config, changes)
        model["experiment"] = data["experiment"] = Experiment(self.experiment)

    @property
    def extra(self) -> dict[str, Any]:
        """What may change the weights and stands in no experiment: it makes another training."""
        found = {
            name: plain(value)
            for name, value in self.given.items()
            if name not in _OF_EXPERIMENT and name not in _HARMLESS
        }
        if str(found.get("strategy", "")).startswith("ddp"):
            del found["strategy"]
        return {"trainer": found} if found else {}

    @property
    def folder(self) -> TrainingFolder:
        """The folder of this training."""
        identity = {**training_identity(self.experiment), **self.extra}
        return self._root.training(files.sha256_of_json(identity)[:20])

    # --- fit ----------------------------------------------------------------------------------

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Return the trainer, which writes checkpoints that are no pickles.

        Raises:
            ConfigError: Lightning refuses its arguments.
        """
        plugins = self._get(self.config_init, "trainer").get("plugins") or []
        listed = plugins if isinstance(plugins, list) else [plugins]
        try:
            return super().instantiate_trainer(
                **kwargs, plugins=[*listed, SafetensorsCheckpointIO()]
            )
        except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
            raise ConfigError(f"Lightning refuses this trainer: {one_line(error)}") from error

    def fit(self, model: SpellingModule, datamodule: SpellingData, **given: Any) -> None:
        """Train in the training's folder, from its newest checkpoint or from the one given."""
        experiment, folder, trainer = self.experiment, self.folder, self.trainer
        steps = experiment.training_config.max_steps
        found_or_fetched(experiment.tokenizer_config.model_name)
        check_fits(experiment, self._own_machine())
        with contextlib.ExitStack() as held:
            held.enter_context(self._threads())
            held.enter_context(contextlib.closing(model))
            bench = load_bench(experiment)
            batches = StepBatches.of(experiment, bench)
            claimed = functools.partial(
                claim,
                experiment,
                bench,
                folder,
                batches,
                trainer.world_size,
                self.given.get("accumulate_grad_batches"),
                self.extra,
            )
            num_parts = claimed(writes=False)
            trainer.accumulate_grad_batches = num_parts // trainer.world_size
            model.training_key, model.num_micro_batches = folder.root.name, num_parts
            path = Path(given["ckpt_path"]) if given.get("ckpt_path") is not None else None
            first = self._step_of(path, model) if path is not None else 0
            if self.given.get("fast_dev_run"):
                trainer.fit(model, datamodule)
                self._say(f"tried out, loss {model.step_loss:.4f}; nothing is written")
                return
            writes = trainer.is_global_zero
            if writes:
                lock = files.exclusive_lock(folder.lock, f"training {folder.root.name}")
                held.enter_context(lock)
            claimed()
            if is_trained(folder, steps):
                self._say(f"{folder.adapter(steps)} is there already")
                return
            if path is None:
                first = continue_from(folder, steps)
                path = folder.checkpoint(first) if first else None
            if path is not None and first == steps:
                # Nothing is left to train, so no other process is started.
                save_adapter_of(model, path, folder.adapter(steps))
                self._say(f"{folder.adapter(steps)} is of checkpoint {path}")
                return
            progress = begin_progress(folder, first, path, writes=writes)
            stop = StopOnSignal()
            ours = callbacks_of(experiment, folder, progress, stop=stop)
            trainer.callbacks[:0] = ours  # type: ignore[attr-defined]
            if writes:
                self._record(folder)
                note(
                    folder,
                    "start",
                    step=first,
                    trainer=without_secrets(plain(self.given)),
                    processes=trainer.world_size,
                )
            clock = time.monotonic()
            with _told_of_the_death_of_others(trainer):
                fit(trainer, model, datamodule, path)
            done = trainer.global_step
            if writes:
                note(folder, "end", step=done, seconds=round(time.monotonic() - clock, 3))
        if stop.signal is not None and done < steps:
            self._say(f"stopped at step {done} of {steps}; the same command goes on")
            # A process that another one has started ends well: its starter would be ended with it.
            self.exit_code = 128 + stop.signal if trainer.is_global_zero else 0
            return
        state = "" if done == steps else f" of {steps}"
        state += "; the same command goes on" if first < done < steps else ""
        self._say(f"{folder.root}: {done} steps{state}, loss {model.step_loss:.4f}")

    def _step_of(self, path: Path, model: SpellingModule) -> int:
        """Return the step of a checkpoint that the user named, which must be of this training."""
        steps = self.experiment.training_config.max_steps
        state = SafetensorsCheckpointIO().load_checkpoint(path)
        model.configure_model()
        model.check_fits(state)
        model.check_continues(state)
        step = int(state["global_step"])
        if step > steps:
            raise ConfigError(f"checkpoint {path} is of step {step}, past max_steps, {steps}")
        return step

    def _record(self, folder: TrainingFolder) -> None:
        """Write all that Lightning was told; `--config` takes the file."""
        told = yaml.safe_load(self._parser("fit").dump(self.config["fit"]))
        text = yaml.safe_dump(without_secrets(told), sort_keys=False)
        files.write_atomic(folder.root / "lightning.yaml", text)

    # --- validate, test -----------------------------------------------------------------------

    def validate(self, model: SpellingModule, datamodule: SpellingData, **given: Any) -> None:
        """Measure on the small suite."""
        self._measure("validate", model, datamodule, given)

    def test(self, model: SpellingModule, datamodule: SpellingData, **given: Any) -> None:
        """Measure on the final suite."""
        self._measure("test", model, datamodule, given)

    def _measure(
        self, how: str, model: SpellingModule, data: SpellingData, given: Mapping[str, Any]
    ) -> None:
        path = given.get("ckpt_path")
        steps = self.experiment.training_config.max_steps
        if path is None:
            if not is_trained(self.folder, steps):
                raise NotFoundError(
                    f"nothing is trained yet: there is no {self.folder.adapter(steps)}; run fit "
                    f"with the same options first, or name a checkpoint with --ckpt_path"
                )
            model.adapter = self.folder.adapter(steps)
        with self._threads(), contextlib.closing(model):
            run = getattr(self.trainer, how)
            run(model, data, ckpt_path=path, weights_only=True, verbose=False)
            says = model.bench.base.says
        if self.trainer.is_global_zero:
            measured = f"checkpoint {path}" if path is not None else f"adapter {model.adapter}"
            print(accuracy_table(how, f"{says}, {measured}", self.trainer.callback_metrics))

    # --- both ---------------------------------------------------------------------------------

    def _own_machine(self) -> Machine:
        """Return what this process has: a GPU of its own, or its share of the memory."""
        machine = this_machine()
        if machine.has_gpu:
            return machine
        if self._num_here == 1:
            return machine
        name = f"each of {self._num_here} processes on this machine"
        return dataclasses.replace(
            machine, name=name, num_bytes=machine.num_bytes // self._num_here
        )

    @property
    def _num_here(self) -> int:
        return max(1, self.trainer.world_size // self.trainer.num_nodes)

    def _threads(self) -> contextlib.AbstractContextManager[None]:
        own = self.experiment.training_config.num_threads
        if own is None and "OMP_NUM_THREADS" not in os.environ:
            own = max(1, default_threads() // self._num_here)
        return threads(own)

    def _say(self, text: str) -> None:
        if self.trainer.is_global_zero:
            print(text, file=sys.stderr)


_OF_EXPERIMENT: Mapping[str, str] = {
    "max_steps": "training_config.max_steps",
    "gradient_clip_val": "training_config.max_grad_norm",
    "precision": "training_config.precision",
}
"""Arguments of a trainer that an experiment has too, and the key there."""

_HARMLESS = frozenset(
    {
        "accelerator",
        "accumulate_grad_batches",
        "barebones",
        "benchmark",
        "check_val_every_n_epoch",
        "default_root_dir",
        "detect_anomaly",
        "deterministic",
        "devices",
        "enable_autolog_hparams",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "inference_mode",
        "limit_predict_batches",
        "limit_test_batches",
        "limit_val_batches",
        "log_every_n_steps",
        "logger",
        "max_time",
        "num_nodes",
        "num_sanity_val_steps",
        "profiler",
        "use_distributed_sampler",
        "val_check_interval",
    }
)
"""Arguments that do not change what is learned; micro-batches are remembered by the folder."""


class ProcessDiedError(RuntimeError):
    """Another process of a run has died, so this one cannot go on."""


@contextlib.contextmanager
def _told_of_the_death_of_others(trainer: pl.Trainer) -> Iterator[None]:
    """Say in one line that another process of this run has died, where its partners notice it.

    Raises:
        ProcessDiedError: One has.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if trainer.world_size > 1 and any(sign in text for sign in _SIGNS_OF_DEATH):
            raise ProcessDiedError(
                f"another process of this run has died ({one_line(error)[:80]}...); the same "
                f"command goes on from the last checkpoint"
            ) from error
        if "conditioned on metric" in text:
            raise ConfigError(f"Lightning refuses: {one_line(error)}") from error
        raise


_SIGNS_OF_DEATH = ("Connection closed by peer", "Connection reset by peer", "NCCL", "Gloo", "gloo")


def _in_our_words(name: str, value: Any) -> Any:
    if name != "precision":
        return value
    known = {theirs: ours for ours, theirs in LIGHTNING_PRECISION.items()} | {
        "32": "32-true",
        "fp16": "fp16",
        "bf16": "bf16",
        "16": "fp16",
    }
    if str(value) not in known:
        raise ConfigError(
            f"trainer.precision: adapters are always trained in fp32, so the choice is "
            f"{', '.join(LIGHTNING_PRECISION.values())}, got {value}"
        )
    return known[str(value)]


# --- the command line ---------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake is one clear line, and 2 is returned.

    Args:
        arguments: As on a command line; those of this process if not given.
    """
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        for line in str(error).splitlines():
            print(f"tuning: {line}", file=sys.stderr)
        return 2
    except MisconfigurationException as error:
        print(f"tuning: {one_line(error)}", file=sys.stderr)
        return 2
    except argparse.ArgumentError as error:
        print(f"tuning: {told_plainly(error)}", file=sys.stderr)
        return 2
    except NotANumberError as error:
        print(f"tuning: {error}: a lower learning rate, or more warm-up", file=sys.stderr)
        return 1
    except ProcessDiedError as error:
        print(f"tuning: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise ConfigError(f"{command}: no such subcommand; {nearest(command, COMMANDS)}")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", type=Path)
    parser.add_argument("--results-dir", type=Path, default=DEFAULT_RESULTS_DIR)
    parser.add_argument("--config-dir", type=Path, default=DEFAULT_CONFIG_DIR)
    ours, rest = parser.parse_known_args(rest)
    overrides, theirs = _split(rest)
    if theirs and not theirs[0].startswith("-"):
        raise ConfigError(
            f"{theirs[0]}: not understood; an experiment file is given as --config FILE, an "
            f"override as KEY=VALUE"
        )
    told: dict[str, Any] = {}
    args = [command]
    if ours.config is not None:
        experiment, is_printed = _experiment(ours.config, overrides, ours.config_dir)
        told = _told(command, experiment)
        if is_printed:
            # Its own trainer section counts as the user's word; for measuring it takes all batches.
            args += [f"--config={ours.config}"]
            args += [] if command == "fit" else ["--trainer.limit_val_batches=null"]
        else:
            args += [f"--trainer.{name}={_argument(value)}" for name, value in told.items()]
        args += ["--model.experiment", json.dumps(experiment.model_dump(mode="json"))]
    elif not {"-h", "--help"} & set(theirs):
        raise ConfigError("--config FILE is needed: an experiment file, YAML or JSON")
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        # A model must not be loaded onto the first GPU by the processes of all.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    with quiet_libraries():
        return TuningCLI([*args, *theirs], told, ResultsRoot(ours.results_dir)).exit_code


def _argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _split(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides among arguments, and what is Lightning's."""
    overrides: list[str] = []
    theirs: list[str] = []
    for i, text in enumerate(rest):
        is_value_of_option = i > 0 and rest[i - 1].startswith("--") and "=" not in rest[i - 1]
        is_ours = _OVERRIDE.match(text) and not is_value_of_option
        (overrides if is_ours else theirs).append(text)
    return overrides, theirs


_OVERRIDE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*=")


def _experiment(
    path: Path, overrides: Sequence[str], config_dir: Path
) -> tuple[ExperimentConfig, bool]:
    """Return what an experiment file says, and whether it is one that --print_config wrote."""
    if path.is_file():
        printed = read_document(path).data.get("model")
        if isinstance(printed, dict) and "experiment" in printed:
            experiment = build(printed["experiment"], str(path))
            return overridden(experiment, overrides, [config_dir]), True
    return load(path, overrides, [config_dir]), False


def _told(command: str, experiment: ExperimentConfig) -> dict[str, Any]:
    told = trainer_arguments(experiment)
    told["enable_progress_bar"] = sys.stderr.isatty()
    if command != "fit":
        del told["limit_val_batches"]
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    if here.isdigit() and "TORCHELASTIC_RUN_ID" in os.environ:
        # torchrun has started the processes: Lightning takes each for a run of its own if not told.
        told["devices"] = int(here)
        told["num_nodes"] = int(os.environ["WORLD_SIZE"]) // int(here)
    return told


if __name__ == "__main__":
    sys.exit(main())
