"""`tuning config`: shown, explained, created, checked and listed; folders accepted everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_support import Program, files_below

from tuning.cli.main import app
from tuning.composition import load
from tuning.config import FLAT_NAMES, KEYS, build, to_yaml
from tuning.documents import parse_yaml
from tuning.grid import create_grid_search_configs
from tuning.paths import shipped_config_dir

STAMP = "20260102_030405"


def answer_of(program: Program, *arguments: str) -> str:
    done = program(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- show ---------------------------------------------------------------------------------------


def test_show_prints_the_defaults_as_a_whole_file(program: Program) -> None:
    shown = answer_of(program, "config", "show", f"timestamp='{STAMP}'")
    config = build({"experiment_name": "spelling_transfer_exp", "timestamp": STAMP}, "test")
    assert shown == to_yaml(config)
    assert files_below(Path()) == []


def test_show_prints_what_a_file_and_overrides_make(program: Program) -> None:
    Path("mine.yaml").write_text(
        f"experiment_name: mine\ntimestamp: '{STAMP}'\nlora_config: {{r: 4, alpha: 8}}\n"
        "defaults: [{training: quick}, _self_]\n"
    )
    shown = answer_of(program, "config", "show", "--config", "mine.yaml", "lora_r=8", "models=tiny")
    data, _ = parse_yaml(shown, "shown")
    assert data["experiment_name"] == "mine"
    assert (data["lora_config"]["r"], data["lora_config"]["alpha"]) == (8, 8.0)
    assert data["training_config"]["max_steps"] == 60
    assert data["tokenizer_config"]["model_name"] == "tiny"
    Path("again.yaml").write_text(shown)
    assert answer_of(program, "config", "show", "--config", "again.yaml") == shown


def test_show_prints_json(program: Program) -> None:
    arguments = ("config", "show", f"timestamp='{STAMP}'", "lora_r=8")
    from_json = json.loads(answer_of(program, *arguments, "--json"))
    assert from_json == parse_yaml(answer_of(program, *arguments), "shown")[0]
    explained = json.loads(answer_of(program, *arguments, "--json", "--explain"))
    assert explained["config"] == from_json
    assert set(explained["origins"]) == set(KEYS)
    assert explained["origins"]["lora_config.r"] == "override 'lora_r=8'"
    assert explained["origins"]["lora_config.alpha"] == "default"


def test_show_reports_all_mistakes_at_once(program: Program) -> None:
    Path("mine.yaml").write_text("experiment_name: mine\nlora_config:\n  r: 0\n  s: 1\n")
    done = program("config", "show", "--config", "mine.yaml", "learning_rate=7")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "tuning: mine.yaml, line 3: lora_config.r: must be greater than or equal to 1, got 0",
        "tuning: mine.yaml, line 4: lora_config.s: no such key; "
        "known: alpha, dropout, r, target_modules",
        "tuning: override 'learning_rate=7': training_config.learning_rate: "
        "must be less than or equal to 1, got 7",
    ]


# --- explain ------------------------------------------------------------------------------------

ORIGIN = re.compile(r"  +# (default|override .+|.+\.yaml, line [0-9]+)$")


def explained(program: Program, *arguments: str) -> dict[str, str]:
    """Return the origin of each key, after checking that the rest is the plain output."""
    plain = parse_yaml(answer_of(program, "config", "show", *arguments), "plain")[0]
    text = answer_of(program, "config", "show", "--explain", *arguments)
    assert parse_yaml(text, "explained")[0] == plain
    origins: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if re.fullmatch(r"[a-z_]+:", line):
            section = f"{line.removesuffix(':')}."
            continue
        found = ORIGIN.search(line)
        assert found, line
        name = line.split(":")[0]
        origins[section + name.strip() if line.startswith(" ") else name] = found[1]
    assert set(origins) == set(KEYS)
    return origins


def test_explain_says_of_every_value_what_set_it(program: Program) -> None:
    Path("mine.yaml").write_text(
        f"experiment_name: mine\ntimestamp: '{STAMP}'\ndefaults: [base, _self_]\n"
        "lora_config:\n  alpha: 8\n  target_modules: [q_proj, v_proj]\n"
    )
    Path("base.yaml").write_text("lora_config: {r: 4, alpha: 4}\n")
    origins = explained(
        program, "--config", "mine.yaml", "models=tiny", "training=quick", "max_steps=70"
    )
    ours = shipped_config_dir()
    assert {key: origin for key, origin in origins.items() if origin != "default"} == {
        "experiment_name": "mine.yaml, line 1",
        "timestamp": "mine.yaml, line 2",
        "lora_config.r": f"{Path.cwd()}/base.yaml, line 1",
        "lora_config.alpha": "mine.yaml, line 5",
        "lora_config.target_modules": "mine.yaml, line 6",
        "training_config.max_steps": "override 'max_steps=70'",
        "training_config.warmup_steps": f"{ours}/training/quick.yaml, line 4",
        "transfer_config.eval_frequency": f"{ours}/training/quick.yaml, line 6",
        "tokenizer_config.model_name": f"{ours}/models/tiny.yaml, line 2",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora_config.target_modules", '["a: b", "c, d", "e # f", "no", "5", "]"]'),
        ("tokenizer_config.model_name", '"a # b: c"'),
        ("tokenizer_config.model_name", f'"{"a long folder " * 20}"'),
        ("tokenizer_config.model_name", '"two\\nlines"'),
        ("spelling_config.word_list", '"1e-4"'),
        ("lightning_config.machine", '"größe"'),
    ],
)
def test_explain_stays_yaml_whatever_a_value_holds(program: Program, key: str, value: str) -> None:
    section, _, name = key.partition(".")
    Path("mine.yaml").write_text(
        f"experiment_name: mine\ntimestamp: '{STAMP}'\ntokenizer_config: {{model_name: a/b}}\n"
        if section != "tokenizer_config"
        else f"experiment_name: mine\ntimestamp: '{STAMP}'\n\n"
    )
    with Path("mine.yaml").open("a") as file:
        file.write(f"{section}:\n  {name}: {value}\n")
    assert explained(program, "--config", "mine.yaml")[key] == "mine.yaml, line 5"


# --- create -------------------------------------------------------------------------------------


def test_create_prints_the_path_of_a_file_that_loads(program: Program) -> None:
    arguments = ("config", "create", "--name", "first", "models=tiny", "lora_r=8")
    path = Path(answer_of(program, *arguments).rstrip("\n"))
    assert files_below(Path()) == [path.as_posix()]
    config = load(path)
    assert path.as_posix() == f"configs/hyperparameters/first_{config.timestamp}.yaml"
    assert (config.experiment_name, config.lora_config.r) == ("first", 8)
    assert config.tokenizer_config.model_name == "tiny"


def test_two_files_of_one_name_within_a_second_are_two_files(program: Program) -> None:
    overrides = ["lora_r=4", "lora_r=8"]
    made = [
        answer_of(program, "config", "create", "--config-dir", "out", override).strip()
        for override in overrides
    ]
    assert files_below(Path()) == sorted(made)
    assert len(set(made)) == 2
    for path, override in zip(made, overrides, strict=True):
        assert f"lora_r={load(Path(path)).lora_config.r}" == override


def test_create_takes_a_file_and_prints_json(program: Program) -> None:
    Path("mine.yaml").write_text(
        f"experiment_name: mine\ntimestamp: '{STAMP}'\nlora_config: {{r: 4}}\n"
    )
    arguments = ("config", "create", "--config", "mine.yaml", "--name", "other", "--json")
    path = Path(json.loads(answer_of(program, *arguments, "--config-dir", "out"))["path"])
    assert path.parent == Path("out")
    config = load(path)
    assert (config.experiment_name, config.lora_config.r) == ("other", 4)
    assert config.timestamp != STAMP, "it is set at creation"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lora_r=0"], ["override 'lora_r=0': lora_config.r"]),
        (["--name", "../x"], ["--name", "1 to 128 letters", "'../x'"]),
        (["--config", "no.yaml"], ["no.yaml: no such file"]),
    ],
)
def test_create_writes_nothing_where_something_is_wrong(
    program: Program, arguments: list[str], words: list[str]
) -> None:
    program("config", "create", *arguments).assert_one_clear_line(*words)
    assert files_below(Path()) == []


@pytest.mark.parametrize("override", ["experiment_name=other", "timestamp='20200101_000000'"])
def test_create_ignores_no_override(program: Program, override: str) -> None:
    done = program("config", "create", "--config-dir", "out", override)
    if done.returncode == 0:
        written = load(Path(done.stdout.strip()))
        assert (written.experiment_name, written.timestamp)[override.startswith("time")] in override
    else:
        done.assert_one_clear_line(override.partition("=")[0])


# --- validate -----------------------------------------------------------------------------------


def test_validate_says_ok_of_all_31_files_of_the_default_space(
    program: Program, tmp_path: Path
) -> None:
    files = [str(path) for path in create_grid_search_configs(config_dir=tmp_path / "made")]
    assert len(files) == 31
    shown = answer_of(program, "config", "validate", *files)
    assert shown.splitlines() == [f"{file}: ok" for file in files]


GOOD = "experiment_name: x\n"
MIXTURE = {
    "good.yaml": GOOD,
    "bad.yaml": f"{GOOD}lora_config:\n  r: 0\n  s: 1\ntraining_config: {{max_steps: 5}}\n",
    "good.json": '{"experiment_name": "x"}',
    "broken.yaml": "a: [\n",
    "space.yaml": "HPARAM_CANDIDATES:\n  lora_r: [4, 8]\n",
    "bad_space.yaml": "strategy: grid\nHPARAM_CANDIDATES:\n  lora_r: [0, 8]\n  lora_alfa: [8]\n",
    "model.yaml": f"{GOOD}tokenizer_config: {{model_name: tinny}}\n",
}
MISTAKES = {
    "bad.yaml": [
        "bad.yaml, line 3: lora_config.r: must be greater than or equal to 1, got 0",
        "bad.yaml, line 4: lora_config.s: no such key; known: alpha, dropout, r, target_modules",
        "bad.yaml, line 5: training_config.warmup_steps: warmup_steps must be at most max_steps, "
        "got 100 > 5",
    ],
    "broken.yaml": ["broken.yaml, line 1: not YAML: "],
    "bad_space.yaml": [
        "bad_space.yaml, line 3: HPARAM_CANDIDATES.lora_r.0: lora_config.r: must be greater than "
        "or equal to 1, got 0",
        "bad_space.yaml, line 4: HPARAM_CANDIDATES.lora_alfa: no such hyperparameter; "
        "did you mean lora_alpha",
    ],
    "model.yaml": ["'tinny'"],
    "missing.yaml": ["missing.yaml: no such file"],
}


def mixture() -> list[str]:
    for name, content in MIXTURE.items():
        Path(name).write_text(content)
    return [*MIXTURE, "missing.yaml"]


def test_validate_reports_all_mistakes_of_all_files(program: Program) -> None:
    done = program("config", "validate", *mixture())
    assert done.returncode == 2
    assert done.stdout.splitlines() == ["good.yaml: ok", "good.json: ok", "space.yaml: ok"]
    expected = [line for lines in MISTAKES.values() for line in lines]
    for line, words in zip(done.stderr.splitlines(), expected, strict=True):
        assert line.startswith("tuning: ")
        assert words in line


def test_validate_answers_in_json_also_where_something_is_wrong(program: Program) -> None:
    files = mixture()
    done = program("config", "validate", "--json", *files)
    assert (done.returncode, done.stderr) == (2, "")
    answer = json.loads(done.stdout)
    assert [row["file"] for row in answer] == files
    for row in answer:
        expected = MISTAKES.get(row["file"], [])
        assert len(row["mistakes"]) == len(expected)
        for words, mistake in zip(expected, row["mistakes"], strict=True):
            assert words in mistake
    good = json.loads(answer_of(program, "config", "validate", "--json", "good.yaml"))
    assert good == [{"file": "good.yaml", "mistakes": []}]


def test_validate_can_be_quiet_about_what_is_good(program: Program) -> None:
    mixture()
    assert answer_of(program, "config", "validate", "--quiet", "good.yaml", "space.yaml") == ""
    done = program("config", "validate", "--quiet", "good.yaml", "missing.yaml")
    done.assert_one_clear_line("missing.yaml: no such file")


@pytest.mark.parametrize(
    "content",
    [
        "HPARAM_CANDIDATES: {lora_r: [4]}\n",
        "HPARAM_RANGE: {lora_r: {low: 4, high: 8}}\n",
        "defaults: [base, _self_]\nreplicates: 2\n",
    ],
)
def test_validate_knows_a_search_space_from_an_experiment(program: Program, content: str) -> None:
    Path("base.yaml").write_text("HPARAM_CANDIDATES: {lora_r: [4]}\n")
    Path("mine.yaml").write_text(content)
    assert answer_of(program, "config", "validate", "mine.yaml") == "mine.yaml: ok\n"


def test_validate_accepts_everything_that_ships(program: Program) -> None:
    ours = shipped_config_dir()
    cloud = [ours / "lightning" / f"{n}.yaml" for n in ("studio", "phases", "scheduler", "prices")]
    cloud += (ours / "lightning" / "templates").glob("*.yaml")
    files = [*(ours / "search_spaces").glob("*.yaml"), *ours.glob("*.yaml"), *cloud]
    assert len(files) == 13 + 4 + 6
    shown = answer_of(program, "config", "validate", *map(str, files))
    assert shown.count(": ok\n") == len(files)


# --- keys ---------------------------------------------------------------------------------------


def test_keys_lists_every_key_of_the_schema(program: Program) -> None:
    listed = json.loads(answer_of(program, "config", "keys", "--json"))
    assert [row["key"] for row in listed] == list(KEYS)
    assert {row["flat_name"] for row in listed} - {None} == set(FLAT_NAMES)
    text = answer_of(program, "config", "keys")
    for row in listed:
        assert row["key"] in text
        assert row["law"]
        assert row["says"]
        assert row["says"].split()[0] in text


@pytest.mark.parametrize(
    ("key", "law", "default"),
    [
        ("lora_config.r", "integer in [1, 1024]", 16),
        ("lora_config.alpha", "number in (0, 4096]", 32),
        ("lora_config.dropout", "number in [0, 1)", 0.05),
        ("training_config.learning_rate", "number in (0, 1]", 0.0002),
        ("training_config.max_steps", "integer in [1, 10000000]", 1000),
        ("training_config.max_grad_norm", "number in (0, ", 1.0),
        ("training_config.schedule", "constant_with_warmup, linear, cosine", "constant_with_warmup"),
        ("lightning_config.auto_scale", "true or false", True),
        ("tokenizer_config.model_name", "text", "Qwen/Qwen3-4B"),
        ("lora_config.target_modules", "list of text", ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("training_config.num_threads", "integer in [1, 1024]", None),
    ],
)  # fmt: skip
def test_keys_says_the_law_and_the_default(
    program: Program, key: str, law: str, default: Any
) -> None:
    listed = json.loads(answer_of(program, "config", "keys", key, "--json"))
    row = next(row for row in listed if row["key"] == key)
    assert row["law"].replace(",", "").startswith(law.replace(",", ""))
    assert row["default"] == default


def test_keys_takes_a_pattern_of_flat_or_dotted_names(program: Program) -> None:
    text = answer_of(program, "config", "keys", "batch_size")
    assert text.splitlines()[0] == "training_config.per_device_train_batch_size (batch_size)"
    assert "integer in [1, 65536]; default 8" in text
    listed = json.loads(answer_of(program, "config", "keys", "lora", "--json"))
    assert [row["key"] for row in listed] == [key for key in KEYS if key.startswith("lora_config")]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_unknown_pattern_names_the_nearest(program: Program, options: list[str]) -> None:
    done = program("config", "keys", "lora_rr", *options)
    if options:
        assert (done.returncode, done.stdout) == (0, "[]\n")
    else:
        done.assert_one_clear_line("lora_rr: no such key; did you mean lora_r")


# --- folders and mistakes on the command line -----------------------------------------------------


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every command that does something."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path
    for name, inner in (below or {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = list(commands(typer.main.get_command(app)))


def test_the_commands_below_are_those_of_the_program() -> None:
    assert len(COMMANDS) > 20
    assert {("demo",), ("config", "show"), ("study", "run"), ("tasks", "scan")} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_accepts_both_folders(program: Program, command: tuple[str, ...]) -> None:
    done = program(*command, "--results-dir", "x", "--config-dir", "y", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"tuning {' '.join(command)} [OPTIONS]" in " ".join(done.stdout.split())


def test_a_folder_that_a_command_has_no_use_for_changes_nothing(program: Program) -> None:
    shown = answer_of(program, "config", "keys", "lora_r")
    for option in ("--results-dir", "--config-dir"):
        assert answer_of(program, "config", "keys", "lora_r", option, "x") == shown
    assert files_below(Path()) == []


def test_the_folder_of_configurations_is_searched_before_ours(program: Program) -> None:
    Path("own/training").mkdir(parents=True)
    Path("own/training/quick.yaml").write_text("training_config: {max_steps: 777}\n")
    Path("own/size").mkdir()
    Path("own/size/large.yaml").write_text("lora_config: {r: 64}\n")
    arguments = ("config", "show", "--json", "--config-dir", "own", "training=quick", "size=large")
    shown = json.loads(answer_of(program, *arguments))
    assert shown["training_config"]["max_steps"] == 777
    assert shown["lora_config"]["r"] == 64
    Path("mine.yaml").write_text(f"{GOOD}defaults: [{{size: large}}, _self_]\n")
    assert "ok" in answer_of(program, "config", "validate", "mine.yaml", "--config-dir", "own")
    program("config", "validate", "mine.yaml").assert_one_clear_line("line 2: size: no such group")


FOUND_ONLY_BY_LOOKING = {
    "own sampler": (
        "strategy: bayesian\nsampler: nomod:Cls\nHPARAM_CANDIDATES: {lora_r: [4, 8, 32]}\n",
        ("f.yaml", "sampler nomod:Cls cannot be imported"),
    ),
    "many draws": (
        "strategy: random\nnum_trials: 20000\n"
        "HPARAM_RANGE: {learning_rate: {low: 1e-4, high: 1e-3}}\n",
        ("f.yaml", "at most 10,000 trials"),
    ),
    "word list": (
        "experiment_name: x\nspelling_config: {word_list: nope.txt}\n",
        ("f.yaml", "spelling_config.word_list", "nope.txt"),
    ),
    "model": ("experiment_name: x\ntokenizer_config: {model_name: tinny}\n", ("f.yaml", "tiny")),
    "model of a space": (
        "HPARAM_CANDIDATES: {tokenizer_config.model_name: [tiny, tinny]}\n",
        ("f.yaml", "'tinny'", "did you mean tiny"),
    ),
}


@pytest.mark.parametrize("fault", FOUND_ONLY_BY_LOOKING)
def test_validate_finds_what_a_run_would_stumble_over(program: Program, fault: str) -> None:
    content, words = FOUND_ONLY_BY_LOOKING[fault]
    Path("f.yaml").write_text(content)
    program("config", "validate", "f.yaml").assert_one_clear_line(*words)


def test_a_whole_product_is_valid_though_nobody_could_run_it(program: Program) -> None:
    Path("f.yaml").write_text("strategy: grid\ndefaults: [default, _self_]\n")
    assert "ok" in answer_of(program, "config", "validate", "f.yaml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study", "run", "--space", "random", "--num-trials", "1000001"], ["--num-trials"]),
        (["--mode", "grid", "models=tiny"], ["No such command", "--config FILE"]),
        (["--mode", "single", "--space", "small"], ["--space belongs to --mode grid"]),
        (["config", "show", "r=8"], ["did you mean lora_config.r", "r: no such"]),
        (["config", "show", "LORA_R=8"], ["did you mean lora_r?"]),
        (["config", "shw"], ["No such command 'shw'", "show"]),
        (["confg"], ["No such command 'confg'"]),
        (["config", "show", "--explan"], ["No such option: --explan"]),
        (["config", "show", "--config"], ["--config", "requires an argument"]),
        (["config", "validate"], ["Missing argument"]),
        (["config", "show", "lora_rr=8"], ["lora_rr: no such", "did you mean lora_r"]),
        (["config", "show", "mine.yaml"], ["must be key=value, got 'mine.yaml'"]),
        (["config", "show", "hydra.run.dir=x"], ["hydra.run.dir"]),
        (["config", "show", "--config", "no.yaml"], ["no.yaml: no such file"]),
        (["config", "show", "--config", "."], ["is a folder"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_clear_line(
    program: Program, arguments: list[str], words: list[str]
) -> None:
    program(*arguments).assert_one_clear_line(*words)
    assert files_below(Path()) == []


@pytest.mark.parametrize("group", ["config", "space", "study", "tasks", "models"])
def test_a_group_alone_shows_its_commands_and_says_nothing_empty(
    program: Program, group: str
) -> None:
    done = program(group)
    assert f"tuning {group} [OPTIONS] COMMAND" in " ".join(done.stdout.split())
    assert done.stderr.strip() != "tuning:"
