"""The peer: what a competent user writes today. Optuna, `transformers.Trainer`, PEFT, `generate()`.

A fresh model for every trial, one process, all processor threads. Written as well as these
libraries allow: rows tokenised once and kept for all trials with the same data, padded to the
longest of their micro-batch and sorted by length within a step, the adapter merged before it is
asked, items of one task and of similar length in large batches, decoded no further than the task's
longest right answer, the untouched model asked once. Base model, words, examples, configurations,
clip and optimiser are ours, so that both sides should find the same.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from tuning.config import ExperimentConfig
from tuning.model.base import subject_words, tokenizer_of, training_data_of
from tuning.model.hub import found_or_fetched
from tuning.model.tokenizer import EncodedItem, TextTokenizer
from tuning.tasks.items import Item
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.suite import Suite, build_suite
from tuning.tasks.words import SubjectWords

ROWS_OF_GENERATION = 128


def fresh_model(name: str) -> PreTrainedModel:
    """Return the base model, read from disk in fp32."""
    return AutoModelForCausalLM.from_pretrained(
        str(found_or_fetched(name)), dtype=torch.float32, local_files_only=True
    )


class Rows(Dataset[EncodedItem]):
    """Tokenised rows, in the order in which a trial sees them."""

    def __init__(self, rows: Sequence[EncodedItem]) -> None:
        """Keep them."""
        self.rows = rows

    def __len__(self) -> int:
        """Return their number."""
        return len(self.rows)

    def __getitem__(self, index: int) -> EncodedItem:
        """Return one."""
        return self.rows[index]


@dataclass
class Collator:
    """Pads a micro-batch on the right; prompts have no label."""

    pad_id: int

    def __call__(self, rows: Sequence[EncodedItem]) -> dict[str, torch.Tensor]:
        """Return ids, mask and labels."""
        width = max(len(row.prompt) + len(row.answer) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        labels = torch.full((len(rows), width), -100)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            length = len(row.prompt) + len(row.answer)
            ids[i, :length] = torch.tensor(row.prompt + row.answer)
            labels[i, len(row.prompt) : length] = torch.tensor(row.answer)
            mask[i, :length] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class StepTimes(TrainerCallback):
    """Notes how long each optimizer step took."""

    def __init__(self) -> None:
        """Begin with none."""
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *arguments: Any, **told: Any) -> None:
        """Note when a step begins."""
        self._began = time.perf_counter()

    def on_step_end(self, *arguments: Any, **told: Any) -> None:
        """Note what it took."""
        self.seconds.append(time.perf_counter() - self._began)


@dataclass(frozen=True)
class Questions:
    """What both sides train on and are asked."""

    tokenizer: TextTokenizer
    words: Mapping[Split, SubjectWords]
    suite: Suite

    @classmethod
    def of(cls, config: ExperimentConfig) -> Questions:
        """Return those of a configuration; loads no weights."""
        name = config.tokenizer_config.model_name
        tokenizer, words = tokenizer_of(name), split_subjects(subject_words(name))
        held_out = words[Split.VALIDATION]
        suite = build_suite(held_out, config.evaluation_config.num_words, tokenizer.cut)
        return cls(tokenizer, words, suite)


@dataclass
class Peer:
    """Trains and asks; keeps tokenised rows between trials."""

    questions: Questions
    bf16: bool = False
    """Autocast to bf16, as `TrainingArguments.bf16` does."""
    fresh: Callable[[str], Any] = fresh_model
    """Gives the untouched model by its name."""
    last_rows: list[EncodedItem] = field(default_factory=list)
    """What the last training was given."""
    _rows: dict[str, list[EncodedItem]] = field(default_factory=dict)

    def train(self, config: ExperimentConfig, callback: TrainerCallback) -> Any:
        """Train a fresh model; return it with its adapter."""
        training, lora = config.training_config, config.lora_config
        torch.manual_seed(training.seed)
        model = get_peft_model(
            self.fresh(config.tokenizer_config.model_name),
            LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=list(lora.target_modules),
                task_type="CAUSAL_LM",
            ),
        )
        rows = self.last_rows = self._rows_of(config)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=model,
                args=TrainingArguments(
                    output_dir=folder,
                    per_device_train_batch_size=training.per_device_train_batch_size,
                    gradient_accumulation_steps=training.gradient_accumulation_steps,
                    max_steps=training.max_steps,
                    warmup_steps=training.warmup_steps,
                    learning_rate=training.learning_rate,
                    lr_scheduler_type=training.schedule.value,
                    weight_decay=training.weight_decay,
                    adam_beta1=training.adam_beta1,
                    adam_beta2=training.adam_beta2,
                    max_grad_norm=training.max_grad_norm,
                    train_sampling_strategy="sequential",
                    seed=training.seed,
                    bf16=self.bf16,
                    use_cpu=not torch.cuda.is_available(),
                    report_to="none",
                    save_strategy="no",
                    logging_strategy="no",
                    disable_tqdm=True,
                    remove_unused_columns=False,
                ),
                train_dataset=Rows(rows),
                data_collator=Collator(self.questions.tokenizer.end_ids[0]),
                callbacks=[callback],
            )
            trainer.train()
        return model

    def _rows_of(self, config: ExperimentConfig) -> list[EncodedItem]:
        """Return the tokenised rows of a trial, sorted by length within each step."""
        training = config.training_config
        tokenizer = self.questions.tokenizer
        batch = training.effective_batch_size
        key = repr((config.spelling_config, training.seed))
        kept = self._rows.setdefault(key, [])
        wanted = training.max_steps * batch
        if len(kept) < wanted:
            stream = training_data_of(config, self.questions.words[Split.TRAIN], tokenizer).stream
            kept += tokenizer.encode_items([stream.example(i) for i in range(len(kept), wanted)])
        steps = (kept[start : start + batch] for start in range(0, wanted, batch))
        return [row for step in steps for row in sorted(step, key=_length)]

    def accuracies(self, model: Any) -> dict[str, float]:
        """Return the share of right answers of each task."""
        right = self.verdicts(model)
        tasks = [str(item.task) for item in self.questions.suite.items]
        return {
            task: sum(r for r, t in zip(right, tasks, strict=True) if t == task) / tasks.count(task)
            for task in sorted(set(tasks))
        }

    def verdicts(self, model: Any) -> list[bool]:
        """Return for each item whether greedy decoding gives the right answer."""
        items = self.questions.suite.items
        return verdicts(model, self.questions.tokenizer, items, self._encoded, self.bf16)

    @functools.cached_property
    def _encoded(self) -> list[EncodedItem]:
        return self.questions.tokenizer.encode_items(self.questions.suite.items)


def _length(row: EncodedItem) -> int:
    return len(row.prompt) + len(row.answer)


@torch.inference_mode()
def verdicts(
    model: Any,
    tokenizer: TextTokenizer,
    items: Sequence[Item],
    encoded: Sequence[EncodedItem],
    bf16: bool = False,
) -> list[bool]:
    """Return for each item whether batched greedy decoding gives a right answer."""
    model.eval()
    right = [False] * len(items)
    end = tokenizer.end_ids[0]
    longest = {str(item.task): 0 for item in items}
    for item in items:
        longest[str(item.task)] = max(longest[str(item.task)], len(item.answer.encode()))
    for chosen in _batches(items, encoded):
        width = max(len(encoded[i].prompt) for i in chosen)
        ids = torch.full((len(chosen), width), end)
        mask = torch.zeros((len(chosen), width), dtype=torch.long)
        for row, i in enumerate(chosen):
            prompt = encoded[i].prompt
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                # A longer text is wrong already.
                max_new_tokens=longest[str(items[chosen[0]].task)] + 1,
                do_sample=False,
                eos_token_id=list(tokenizer.end_ids),
                pad_token_id=end,
            )
        for i, answer in zip(chosen, output[:, width:].tolist(), strict=True):
            ends = [place for place, token in enumerate(answer) if token in tokenizer.end_ids]
            text = tokenizer.decode(answer[: ends[0]]) if ends else None
            right[i] = text in (items[i].answer, *items[i].targets)
    return right


def _batches(items: Sequence[Item], encoded: Sequence[EncodedItem]) -> Iterator[list[int]]:
    """Yield rows of one task and of similar prompt length."""
    for task in sorted({str(item.task) for item in items}):
        rows = [i for i, item in enumerate(items) if str(item.task) == task]
        rows.sort(key=lambda i: len(encoded[i].prompt))
        for start in range(0, len(rows), ROWS_OF_GENERATION):
            yield rows[start : start + ROWS_OF_GENERATION]


def run_study(
    configs: Mapping[str, ExperimentConfig], bf16: bool = False
) -> dict[str, dict[str, float]]:
    """Run the configurations as an Optuna study; return accuracies by name, with those of `base`.

    Args:
        configs: By name; of one model.
        bf16: Train and ask under autocast.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    one = next(iter(configs.values()))
    peer = Peer(Questions.of(one), bf16)
    name = one.tokenizer_config.model_name
    found = {"base": peer.accuracies(fresh_model(name))}

    def objective(trial: optuna.Trial) -> float:
        chosen = trial.suggest_categorical("configuration", list(configs))
        model = peer.train(configs[chosen], StepTimes())
        found[chosen] = peer.accuracies(model.merge_and_unload())
        gains = {task: found[chosen][task] - found["base"][task] for task in found["base"]}
        return sum(gain for task, gain in gains.items() if task != "spelling") / 2

    sampler = optuna.samplers.GridSampler({"configuration": list(configs)}, seed=0)
    optuna.create_study(direction="maximize", sampler=sampler).optimize(
        objective, n_trials=len(configs)
    )
    return found
