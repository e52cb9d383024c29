"""Faults put into configurations, overrides and search spaces: each is refused in clear words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tuning.composition import load
from tuning.config import KEYS, kind_of
from tuning.errors import UserError
from tuning.grid import load_space


class Fault(NamedTuple):
    """What is wrong, and what a person must be told."""

    files: dict[str, str]
    """The first one is loaded."""
    words: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    num_lines: int = 1

    @property
    def is_space(self) -> bool:
        return "space.yaml" in self.files

    @property
    def title(self) -> str:
        last = list(self.files.values())[-1].removeprefix(NAME)
        return " ".join(self.overrides) or " ".join(last.split())[:70]

    def written(self, folder: Path) -> Path:
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode())
        return folder / next(iter(self.files))


NAME = "experiment_name: x\n"


def experiment(text: str, *words: str, num_lines: int = 1) -> Fault:
    """Return a fault in a file whose first line is its name."""
    return Fault({"main.yaml": NAME + text}, ("main.yaml", *words), num_lines=num_lines)


def whole(text: str, *words: str) -> Fault:
    """Return a fault in a whole file."""
    return Fault({"main.yaml": text}, ("main.yaml", *words))


def in_json(text: str, *words: str) -> Fault:
    return Fault({"main.json": text}, ("main.json", *words))


def value(key: str, wrong: str, *words: str) -> Fault:
    """Return a fault in the value of one key, on line 3."""
    section, _, name = key.rpartition(".")
    return experiment(f"{section}:\n  {name}: {wrong}\n", f"line 3: {key}: must be ", *words)


def override(text: str, *words: str) -> Fault:
    return Fault({"main.yaml": NAME}, words, (text,))


def in_group(text: str, *words: str) -> Fault:
    """Return a fault in a group's file that an override chooses."""
    files = {"main.yaml": NAME, "training/own.yaml": text}
    return Fault(files, ("training/own.yaml", *words), ("training=own",))


def inherited(text: str, *words: str) -> Fault:
    """Return a fault in a file that another one inherits."""
    files = {"main.yaml": f"{NAME}defaults: [base, _self_]\n", "base.yaml": text}
    return Fault(files, ("base.yaml", *words))


def space(text: str, *words: str, num_lines: int = 1) -> Fault:
    return Fault({"space.yaml": text}, ("space.yaml", *words), num_lines=num_lines)


def candidates(text: str, *words: str) -> Fault:
    """Return a fault in candidates, the first of which stand on line 2."""
    return space(f"HPARAM_CANDIDATES:\n  {text}\n", *words)


def ranges(text: str, *words: str) -> Fault:
    """Return a fault in ranges, the first of which stands on line 3."""
    return space(f"strategy: random\nHPARAM_RANGE:\n  {text}\n", "line 3: HPARAM_RANGE.", *words)


def condition(text: str, *words: str) -> Fault:
    """Return a fault in conditions, the first of which stands on line 6."""
    return space(
        "strategy: grid\nHPARAM_CANDIDATES:\n  lora_r: [4, 8]\n  lora_alpha: [8, 16]\n"
        f"conditions:\n  {text}\n",
        *words,
    )


AT_LEAST, AT_MOST = "greater than or equal to", "less than or equal to"
ABOVE, BELOW = "greater than", "less than"

OUT_OF_RANGE = [
    value("lora_config.r", "1025", f"{AT_MOST} 1024", "got 1025"),
    value("lora_config.alpha", "4097", f"{AT_MOST} 4096", "got 4097"),
    value("lora_config.dropout", "1.0", f"{BELOW} 1", "got 1.0"),
    value("training_config.learning_rate", "0", f"{ABOVE} 0", "got 0"),
    value("training_config.per_device_train_batch_size", "65537", f"{AT_MOST} 65536"),
    value("training_config.gradient_accumulation_steps", "0", f"{AT_LEAST} 1", "got 0"),
    value("training_config.max_steps", "0", f"{AT_LEAST} 1", "got 0"),
    value("training_config.warmup_steps", "-1", f"{AT_LEAST} 0", "got -1"),
    value("training_config.weight_decay", "10.5", f"{AT_MOST} 10", "got 10.5"),
    value("training_config.adam_beta1", "1", f"{BELOW} 1", "got 1"),
    value("training_config.adam_beta2", "-0.5", f"{AT_LEAST} 0", "got -0.5"),
    value("training_config.max_grad_norm", "0.0", f"{ABOVE} 0", "got 0.0"),
    value("training_config.seed", "4294967296", f"{BELOW} 4294967296"),
    value("training_config.num_threads", "0", f"{AT_LEAST} 1", "got 0"),
    value("spelling_config.data_ratio", "0", f"{ABOVE} 0", "got 0"),
    value("transfer_config.eval_frequency", "0", f"{AT_LEAST} 1", "got 0"),
    value("transfer_config.position_task_weight", "2", f"{AT_MOST} 1", "got 2"),
    value("transfer_config.count_task_weight", "1.1", f"{AT_MOST} 1", "got 1.1"),
    value("evaluation_config.num_words", "9", f"{AT_LEAST} 10", "got 9"),
    value("evaluation_config.num_monitor_words", "2", f"{AT_LEAST} 3", "got 2"),
    value("evaluation_config.num_generated_items", "-1", f"{AT_LEAST} 0", "got -1"),
    value("evaluation_config.num_thinking_items", "0", f"{AT_LEAST} 1", "got 0"),
    value("evaluation_config.max_thinking_tokens", "0", f"{AT_LEAST} 1", "got 0"),
]

WRONG_TYPES = [
    value("lora_config.r", "8.0", "integer, written without point or exponent, got 8.0"),
    value("lora_config.r", '"8"', "integer", "got '8'"),
    value("lora_config.r", "true", "integer", "got True"),
    value("lora_config.alpha", "large", "number", "got 'large'"),
    value("training_config.learning_rate", ".nan", "finite number", "got nan"),
    value("training_config.max_grad_norm", ".inf", "finite number", "got inf"),
    value("lightning_config.auto_scale", '"yes"', "boolean", "got 'yes'"),
    value("evaluation_config.oracle", "1", "boolean", "got 1"),
    value("tokenizer_config.model_name", "no", "string", "got False"),
    value("spelling_config.difficulty", "extreme", "'easy', 'medium' or 'hard'", "'extreme'"),
    value("lightning_config.gpu_tier", "h100", "'cpu', 't4' or 'a100'", "got 'h100'"),
    experiment(
        "lora_config:\n  target_modules: q_proj\n", "line 3: lora_config.target_modules: must be"
    ),
    experiment("lora_config:\n  target_modules:\n    - q_proj\n    - 5\n", "line 5: ", "got 5"),
    experiment("lora_config:\n  target_modules: []\n", "line 3: ", "at least 1", "got []"),
    experiment('tokenizer_config:\n  model_name: ""\n', "line 3: ", "at least 1 character"),
    experiment("lora_config:\n", "line 2: lora_config: must be", "got None"),
    experiment("timestamp: yesterday\n", "line 2: timestamp: must match", "got 'yesterday'"),
    whole("experiment_name: ../x\n", ", line 1: experiment_name", "1 to 128 letters", "'../x'"),
    whole("lora_config: {r: 8}\n", ": experiment_name: must be given"),
]

TYPOS = [
    experiment("lora_confg: {}\n", "line 2: lora_confg: no such key", "mean lora_config"),
    experiment("lora_config:\n  r: 8\n  alfa: 3\n", "line 4: lora_config.alfa: no such key"),
    experiment("lora_r: 8\n", "line 2: lora_r: no such key", "lora_config: {r: ...}"),
    experiment("lora_config.r: 8\n", "line 2: lora_config.r: no such key"),
    experiment("HPARAM_CANDIDATES: {lora_r: [4]}\n", "line 2: HPARAM_CANDIDATES: no such key"),
    experiment('"a\\nb": 1\n', "line 2: ", "a key must be one line"),
    experiment("hydra: {run: {dir: x}}\n", "line 2: hydra"),
]

BETWEEN_KEYS = [
    experiment(
        "training_config:\n  max_steps: 100\n  warmup_steps: 101\n",
        "line 4: training_config.warmup_steps: ",
        "at most max_steps, got 101 > 100",
    ),
    experiment("training_config:\n  max_steps: 5\n", "line 2: ", "got 100 > 5"),
    experiment(
        "lora_config:\n  r: 4\n  alpha: 4000\n",
        "line 4: lora_config.alpha: alpha / r must lie in [1/16, 64]",
        "choose alpha between 0.25 and 256",
    ),
    experiment(
        "tokenizer_config: {model_name: tiny}\nlora_config:\n  target_modules: [q_proj, c_attn]\n",
        "line 4: lora_config.target_modules: ",
        "linear layers of tiny (family qwen3), got 'c_attn'",
    ),
    experiment(
        "tokenizer_config: {model_name: qwen3-4b}\nlora_config:\n  target_modules: [q_prj]\n",
        "line 4: ",
        "linear layers of qwen3-4b",
        "did you mean q_proj",
    ),
    experiment(
        "tokenizer_config: {model_name: owner/own, use_english_only_tokens: true}\n"
        "lora_config:\n  target_modules: [q_proj, embed_tokens]\n",
        "line 4: lora_config.target_modules: with use_english_only_tokens",
        "must not hold embed_tokens",
    ),
    experiment(
        "lightning_config: {gpu_tier: t4}\ntraining_config:\n  precision: bf16\n",
        "line 4: training_config.precision: precision bf16 does not exist on a T4",
    ),
    experiment(
        "lightning_config: {machine: T4_X_4}\ntraining_config:\n  precision: bf16\n",
        "line 4: training_config.precision: ",
        "T4_X_4",
    ),
    experiment(
        "lora_config: {r: 4, alpha: 4000}\ntraining_config: {learning_rate: 7, max_steps: 5}\n",
        "line 2: lora_config.alpha: alpha / r must lie",
        "line 3: training_config.learning_rate: must be less than or equal to 1, got 7",
        "line 3: training_config.warmup_steps: ",
        num_lines=3,
    ),
]

YAML_TRAPS = [
    experiment("lora_config: {r: 8\n", "line 2: not YAML: "),
    experiment("lora_config:\n\tr: 8\n", "line 3: not YAML: "),
    experiment("lora_config:\n  r: 4\n  r: 8\n", "line 4: the key 'r' stands twice"),
    experiment("lora_config:\n  yes: 2\n", "line 3: a key must be text, got 'yes'"),
    experiment("lora_config: &a {r: *a}\n", "line 2: an anchor holds itself"),
    experiment(f"a: {'[' * 40}{']' * 40}\n", "line 2: nested more than 32 levels deep"),
    experiment("lora_config: {r: !!python/object:os.system {}}\n", "line 2: not YAML: "),
    experiment('lora_config:\n  r: !!bool "x"\n', "cannot be read"),
    experiment("---\nlora_config: {}\n", "line 2: not YAML: ", "another document"),
    experiment(
        "tokenizer_config:\n  model_name: ${oc.env:HOME}\n",
        "line 3: tokenizer_config.model_name: interpolations",
        "not resolved",
    ),
    experiment("tokenizer_config:\n  model_name: ???\n", "line 3: ", "??? leaves it open"),
    whole("", ": must hold a mapping of sections, got nothing"),
    in_json('{"experiment_name": "x",\n "lora_config": {"r": 0}}', ", line 2: lora_config.r: "),
    # Since 3.13 Python names the line of the comma, before that the next.
    in_json(
        '{"experiment_name": "x",\n}',
        f", line {1 if sys.version_info >= (3, 13) else 2}: not JSON: ",
    ),
    in_json('{"experiment_name": "x", "experiment_name": "y"}', "'experiment_name' stands twice"),
    in_json('{"experiment_name": "x", "lora_config": {"alpha": NaN}}', "finite number, got nan"),
]

INHERITANCE = [
    experiment("defaults: [bse, _self_]\n", "line 2: bse: no such configuration"),
    experiment("defaults: [{training: quik}]\n", "line 2: training=quik: ", "did you mean quick"),
    experiment(
        "defaults: [../main, _self_]\n",
        "line 2: ",
        "an entry must be a file, a group and its choice",
    ),
    experiment("defaults: [main]\n", "line 2: ", "main.yaml -> ", "lead back to themselves"),
    experiment("defaults: models\n", "line 2: defaults", "must be a list"),
    experiment("defaults: [3]\n", "line 2: defaults"),
    inherited("defaults: [base]\n", "lead back to themselves: ", "base.yaml -> "),
    inherited("defaults: [main]\n", "lead back to themselves: ", "main.yaml -> "),
    inherited("\nlora_config:\n  r: 0\n", f"line 3: lora_config.r: must be {AT_LEAST} 1, got 0"),
    inherited("tokenizer_config:\n  model_name: '${x}'\n", "line 2: ", "not resolved"),
    in_group("training_config:\n  max_step: 5\n", "line 2: ", "no such key; did you mean max_st"),
    in_group("training_config:\n  max_steps: 5\n", "line 1: training_config.warmup_steps: "),
    in_group("# @package training_config\nseed: -1\n", "line 2: training_config.seed: must be"),
    in_group("a: 1\na: 2\n", "line 2: the key 'a' stands twice"),
]

OVERRIDES = [
    override("lora_r", "must be key=value, got 'lora_r'"),
    override("lora_rr=8", "lora_rr: no such hyperparameter, key or group; did you mean lora_r"),
    override("lora_config.rr=8", "override 'lora_config.rr=8': lora_config.rr: no such key"),
    override("models=tinny", "models=tinny: no such configuration; did you mean tiny"),
    override("models=../../x", "models must be 1 to 128 letters", "'../../x'"),
    override("search_spaces=demo", "search_spaces: no such hyperparameter, key or group"),
    override("lora_r=0", f"override 'lora_r=0': lora_config.r: must be {AT_LEAST} 1, got 0"),
    override("lora_r=4,8", "override 'lora_r=4,8' names several values", "HPARAM_CANDIDATES"),
    override("lora_r=[4", "override 'lora_r=[4' cannot be read", "quotes"),
    override("lora_r=${oc.env:HOME}", "interpolations such as ${...} are not resolved"),
    override("lora_alpha=2000", "override 'lora_alpha=2000': lora_config.alpha: alpha / r must"),
    override("hydra.run.dir=x", "hydra.run.dir"),
]

SPACES = [
    space("strategy: grid\n", "the space is empty", "HPARAM_CANDIDATES or HPARAM_RANGE"),
    space("strategi: grid\nHPARAM_CANDIDATES: {lora_r: [4]}\n", "line 1: strategi: no such key"),
    space("strategy: grit\nHPARAM_CANDIDATES: {lora_r: [4]}\n", "line 1: ", "'grid', 'random'"),
    space("HPARAM_CANDIDATE: {lora_r: [4]}\n", "line 1: HPARAM_CANDIDATE: no such key"),
    candidates("lora_rr: [4]", "line 2: ", "lora_rr: no such hyperparameter; did you mean lora_r"),
    candidates("lora_r: 4", "line 2: HPARAM_CANDIDATES.lora_r: must be a list, got 4"),
    candidates("lora_r: []", "line 2: ", "needs at least one candidate"),
    candidates("lora_r:\n    - 4\n    - 0", "line 4: ", "lora_r.1: lora_config.r: must be"),
    candidates("learning_rate: [1e-4, 0.0001]", "line 2: ", "0.0001 stands twice"),
    candidates("lora_r: [4]\n  lora_config.r: [8]", "line 3: ", "is given twice"),
    candidates("training_config.seed: [1, 2]", "line 2: ", "is no hyperparameter", "replicates"),
    candidates("warmup_steps: [100, 2000]", "line 2: ", "got 2000 > 1000"),
    candidates("target_modules:\n    - [q_proj]\n    - [c_attn]", "line 2: ", "got 'c_attn'"),
    candidates("lora_r: ['${oc.env:HOME}']", "line 2: HPARAM_CANDIDATES.lora_r.0: interpolations"),
    space(
        "strategy: grid\nHPARAM_CANDIDATES:\n  lora_r: [1, 64]\n  lora_alpha: [64, 128]\n",
        "line 3: HPARAM_CANDIDATES.lora_r: lora_r=1, lora_alpha=128",
        "alpha / r must lie in [1/16, 64]",
    ),
    space(
        "HPARAM_CANDIDATES:\n  gpu_tier: [t4, a100]\n"
        "experiment: {training_config: {precision: bf16}}\n",
        "line 2: HPARAM_CANDIDATES.gpu_tier: gpu_tier=t4: precision bf16 does not exist on a T4",
    ),
    space(
        "HPARAM_CANDIDATES:\n  lora_r: [0]\n  lora_alfa: [8]\nreplicates_of_default: 2\n",
        "line 2: HPARAM_CANDIDATES.lora_r.0: ",
        "line 3: HPARAM_CANDIDATES.lora_alfa: ",
        num_lines=2,
    ),
    ranges("lora_r: {low: 4}", "lora_r.high: must be given"),
    ranges("lora_r: {low: 4, hih: 8, high: 8}", "lora_r.hih: no such key; did you mean high"),
    ranges("lora_r: {low: 8, high: 4}", "lora_r.high: must be above low, got 4 and 8"),
    ranges("lora_r: {low: 0, high: 8}", "lora_r.low: lora_config.r: ", f"{AT_LEAST} 1, got 0"),
    ranges("lora_r: {low: 4, high: 9, step: 2}", "low plus a multiple of step, got 9", "8 and 10"),
    ranges("lora_r: {low: 4, high: 8, scale: ln}", "lora_r.scale: must be 'linear' or 'log'"),
    ranges("lora_dropout: {low: 0, high: 0.3, scale: log}", "low: a log range must begin above 0"),
    ranges("lora_r: {low: 4, high: 8, scale: log, step: 1}", "step: a log range has no step"),
    ranges("spelling_difficulty: {low: 0, high: 1}", "is no number, so it has no range"),
    ranges("lora_r: {low: 1, high: 1024, scale: log}", "lora_r=1024: alpha / r must lie"),
    space(
        "strategy: grid\nHPARAM_RANGE:\n  lora_dropout: {low: 0.0, high: 0.3}\n",
        "line 3: HPARAM_RANGE.lora_dropout: grid needs values that can be counted",
    ),
    condition("lora_dropout: {lora_r: 4}", "line 6: ", "is no parameter of the space"),
    condition("lora_alpha: {lora_r: 16}", "line 6: ", "can never be met: 16 is no candidate"),
    condition("lora_alpha: {lora_r: []}", "line 6: conditions.lora_alpha"),
    condition("lora_alpha: {lora_r: 4}\n  lora_r: {lora_alpha: 8}", "line 5: ", "lead back"),
    space(
        "HPARAM_CANDIDATES: {lora_r: [4, 8], lora_alpha: [8, 16], lora_dropout: [0.1]}\n"
        "strategy: grid\nconditions:\n  lora_alpha: {lora_r: 4}\n"
        "  lora_dropout: {lora_alpha: 8, lora_r: 8}\n",
        "line 5: conditions.lora_dropout",
    ),
    space(
        "HPARAM_CANDIDATES: {lora_r: [4, 8], lora_alpha: [8]}\n"
        "conditions:\n  lora_alpha: {lora_r: 4}\n",
        "line 3: conditions.lora_alpha: is not met by the default configuration",
    ),
    candidates("lora_r: [4]\nnum_trials: 5", "line 3: num_trials: belongs to random and bayesian"),
    candidates("lora_r: [4]\nstrategy: random\nnum_trials: 5", "line 4: ", "at most the 1 points"),
    candidates("lora_r: [4]\nsampler: tpe", "line 3: sampler: belongs to random and bayesian"),
    candidates("lora_r: [4]\nstrategy: random\nsampler: gp", "line 4: sampler: ", "got gp"),
    candidates("lora_r: [4]\nstrategy: bayesian\nsampler: tpee", "sampler", "mean tpe"),
    candidates(
        "lora_r: [4]\nstrategy: bayesian\nsampler_arguments: {num_start_trials: 3}",
        "line 4: sampler_arguments.num_start_trials: no such argument of tpe",
        "did you mean num_startup_trials",
    ),
    candidates("lora_r: [4]\nstrategy: bayesian\nobjectives: [speling]", "line 4: ", "'spelling'"),
    candidates("lora_r: [4]\nreplicates: 0", f"line 3: replicates: must be {AT_LEAST} 1, got 0"),
    candidates("lora_r: [4]\nexperiment:\n  lora_confg: {}", "line 4: experiment.lora_confg: no"),
    candidates("lora_r: [4]\ndefaults: [smal]", "line 3: smal: no such configuration"),
    candidates("lora_r: [4]\ndefaults: [space]", "line 3: ", "lead back to themselves"),
]

FAULTS = [
    *OUT_OF_RANGE,
    *WRONG_TYPES,
    *TYPOS,
    *BETWEEN_KEYS,
    *YAML_TRAPS,
    *INHERITANCE,
    *OVERRIDES,
    *SPACES,
]


def test_there_are_at_least_120_faults_and_none_twice() -> None:
    assert len(FAULTS) >= 120
    assert len({repr((fault.files, fault.overrides)) for fault in FAULTS}) == len(FAULTS)


def test_every_numeric_key_has_a_value_out_of_its_range() -> None:
    numeric = {key for key in KEYS if kind_of(key) in ("integer", "number")}
    assert {fault.words[1].split(": ")[1] for fault in OUT_OF_RANGE} == numeric


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.title)
def test_a_fault_is_refused_in_clear_words(fault: Fault, tmp_path: Path) -> None:
    path = fault.written(tmp_path)
    with pytest.raises(UserError) as caught:
        load_space(str(path)) if fault.is_space else load(path, fault.overrides)
    message = str(caught.value)
    lines = message.splitlines()
    assert len(lines) == fault.num_lines
    for word in fault.words:
        assert word in message
    for line in lines:
        assert line.isprintable()
        assert line.count(str(path)) <= 1 or " -> " in line, "a file is named once"
        for jargon in ("Traceback", "pydantic", "Error"):
            assert jargon not in line


@pytest.mark.parametrize(
    "fault",
    [
        experiment("lora_config:\n", "must be a mapping, got None"),
        experiment("lora_config:\n  target_modules: q_proj\n", "must be a list, got 'q_proj'"),
        experiment("defaults:\n", "must be a list"),
        experiment("defaults: [null]\n", "defaults"),
        space("HPARAM_CANDIDATES:\n", "must be a mapping, got None"),
    ],
    ids=lambda fault: fault.title,
)
def test_a_fault_is_named_in_words_of_yaml_not_of_python(fault: Fault, tmp_path: Path) -> None:
    path = fault.written(tmp_path)
    with pytest.raises(UserError) as caught:
        load_space(str(path)) if fault.is_space else load(path, fault.overrides)
    for word in fault.words:
        assert word in str(caught.value)
    for jargon in ("instance of", "dictionary", "tuple", "NoneType", "a integer"):
        assert jargon not in str(caught.value)


_ALL_AT_ONCE = """
import contextlib, json, sys, time
from pathlib import Path
from tuning.composition import load
from tuning.grid import load_space

def tried(path, overrides, is_space):
    began = time.perf_counter()
    # Whether a fault is refused, and how, is what the other tests are about.
    with contextlib.suppress(Exception):
        load_space(path) if is_space else load(Path(path), overrides)
    return time.perf_counter() - began

faults = json.load(sys.stdin)
tried(*faults[0])
seconds = [tried(*fault) for fault in faults]
heavy = [m for m in ("torch", "transformers", "peft", "lightning") if m in sys.modules]
print(json.dumps([heavy, seconds]))
"""


@pytest.mark.parametrize(
    "tested",
    [FAULTS[::5], pytest.param(FAULTS, marks=pytest.mark.nightly)],
    ids=["every fifth", "all"],
)
def test_a_fault_takes_under_a_second_and_loads_nothing_heavy(
    tmp_path: Path, tested: list[Fault]
) -> None:
    faults = [
        (str(fault.written(tmp_path / str(number))), fault.overrides, fault.is_space)
        for number, fault in enumerate(tested)
    ]
    answer = subprocess.run(
        [sys.executable, "-c", _ALL_AT_ONCE],
        input=json.dumps(faults),
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    heavy, seconds = json.loads(answer.stdout)
    assert heavy == []
    assert len(seconds) == len(tested)
    slow = [f.title for f, s in zip(tested, seconds, strict=True) if s > 1]
    assert slow == []
