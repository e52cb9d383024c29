"""What others may put into files, names and results, and what must never be in ours.

Paths and YAML of users are in test_paths.py, test_composition.py and test_documents.py too.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz_loaders
from conftest import SMALL
from planted_study import Effect, always, write_planted_study
from report_pages import Page
from tests_support import small_mapping
from tuning import files, report, visualization
from tuning.cleaning import find_waste, remove_waste
from tuning.cli.main import main
from tuning.config import build
from tuning.documents import read_document
from tuning.errors import ConfigError, ResultsError, UserError, without_secrets
from tuning.inheritance import MAX_FOLLOWED
from tuning.jobs import Tail, check_progress
from tuning.paths import ResultsRoot
from tuning.records import read_record
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, read_spec
from tuning.transfer_analysis import StudyAnalysis, analyze

# --- loaders ------------------------------------------------------------------------------------


@functools.cache
def target(name: str) -> fuzz_loaders.Target:
    return fuzz_loaders.TARGETS[name]()


@pytest.mark.parametrize("name", list(fuzz_loaders.TARGETS))
def test_a_loader_takes_a_file_or_refuses_it_in_short_lines(name: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    loader = target(name)

    @settings(
        max_examples=50,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(seed=st.integers(0, 2**64), suffix=st.sampled_from(loader.suffixes))
    def holds(seed: int, suffix: str) -> None:
        path = tmp_path / f"f{suffix}"
        path.write_bytes(fuzz_loaders.Source(loader.valid[-3:], loader.keys, seed).next())
        assert fuzz_loaders.broken_by(loader.load, path) is None

    holds()


def test_the_fuzzer_finds_what_breaks_the_law(tmp_path: Path) -> None:
    def crashes(path: Path) -> None:
        raise KeyError("x")

    def says_too_much(path: Path) -> None:
        raise UserError("x" * 2000)

    assert "KeyError" in str(fuzz_loaders.broken_by(crashes, tmp_path))
    assert "2000 characters" in str(fuzz_loaders.broken_by(says_too_much, tmp_path))


def refused(content: str, path: Path) -> str:
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    "value",
    [
        f"0x{'f' * 900_000}",
        "9" * 900_000,
        f"!!int {'1:' * 300_000}1",
        f"!!float {'1:' * 500}1",
        f"!!int 0b{'1' * 900_000}",
    ],
    ids=["hex", "decimal", "base 60", "base 60 float", "binary"],
)
def test_a_number_without_end_is_refused_before_it_is_reckoned(tmp_path: Path, value: str) -> None:
    """Base 60 took half a minute; none of them could be shown in a message."""
    assert "line 2: a number has at most 256 digits" in refused(
        f"a: 1\nb: {value}\n", tmp_path / "f.yaml"
    )


def test_many_values_or_keys_are_refused_at_once(tmp_path: Path) -> None:
    numbers = ",".join(f'"k{i}": 0' for i in range(70_000))
    for name in ("f.yaml", "f.json"):
        assert "must hold at most 30,000 values" in refused(f"{{{numbers}}}", tmp_path / name)
    assert "a number has at most 256 digits" in refused(
        f'{{"a": {"9" * 9000}}}', tmp_path / "g.json"
    )


@pytest.mark.parametrize("key", ['"a\\e[31m"', '"a\\L"', '"a\\N"', "x" * 1000])
def test_a_key_that_no_message_could_name_is_refused(tmp_path: Path, key: str) -> None:
    assert ": a key " in refused(f"? {key}\n: 1\n", tmp_path / "f.yaml")


def test_files_that_each_inherit_the_next_one_twice_are_refused(tmp_path: Path) -> None:
    from tuning.composition import load

    for i in range(30):
        (tmp_path / f"f{i}.yaml").write_text(f"defaults: [f{i + 1}, f{i + 1}]\n")
    (tmp_path / "f30.yaml").write_text("experiment_name: a\n")
    with pytest.raises(ConfigError, match=f"name more than {MAX_FOLLOWED} files"):
        load(tmp_path / "f0.yaml")


# --- results that are read back -----------------------------------------------------------------


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "content", [bomb(), "a: " + "[" * 100_000, "!!float \n", "a: \0", "- 1", ""]
)
def test_a_study_of_someone_else_is_one_clear_line(tmp_path: Path, content: str) -> None:
    folder = ResultsRoot(tmp_path).study("s")
    files.write_atomic(folder.spec, content)
    with pytest.raises(ResultsError, match=r"study.yaml is damaged") as caught:
        read_spec(folder)
    assert str(caught.value).isprintable()


READERS: dict[str, Callable[[Path], object]] = {
    "record": read_record,
    "lines": files.read_json_lines,
    "tail": lambda path: Tail(path, check_progress).lines(),
    "text": files.read_text,
}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_or_has_no_end_is_not_read(tmp_path: Path, reader: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**30)
    (tmp_path / "folder").mkdir()
    for name, reason in (("pipe", "is no file"), ("sparse", "bytes"), ("folder", "directory")):
        with pytest.raises(ResultsError, match=reason):
            READERS[reader](tmp_path / name)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "9" * 400])
def test_a_number_that_cannot_be_reckoned_with_is_damage(tmp_path: Path, number: str) -> None:
    line = f'{{"step": 1, "kind": "train", "num_tokens": 3, "loss": {number}}}\n'
    (tmp_path / "f").write_text(line)
    for reader in ("record", "lines", "tail"):
        with pytest.raises(ResultsError, match="damaged"):
            READERS[reader](tmp_path / "f")


# --- names --------------------------------------------------------------------------------------

NAMES = ["../x", "/etc/passwd", "a\nb", "a\x1b[31mred", "-x", "..", "a/b", "\u0430bc", "x" * 300]
NAMES += ["a\u2028b", "a\u202eb"]
COMMANDS = {
    "study": ("study", "status", "NAME"),
    "a new study": ("study", "run", "--space", "quick", "--name", "NAME", "--dry-run"),
    "space": ("space", "show", "NAME"),
    "configuration": ("config", "show", "NAME"),
    "group": ("config", "show", "models=NAME"),
    "override": ("config", "show", "NAME=1"),
    "model": ("evaluate", "--model", "NAME"),
    "adapter": ("evaluate", "--adapter", "NAME"),
    "suite": ("evaluate", "--suite", "NAME"),
    "words": ("tasks", "exclusions", "NAME"),
    "tokenizer": ("tokens", "show", "word", "--tokenizer", "NAME"),
    "results": ("study", "status", "a", "--results-dir", "NAME"),
    "report": ("report", "NAME"),
    "task": ("lightning", "jobs", "NAME"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_gets_out_of_its_folder_or_onto_the_terminal(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    # An id of the Hub is a name that a model can have, and would be asked for there.
    for name in (name for name in NAMES if (command, name) != ("model", "a/b")):
        arguments = [part.replace("NAME", name) for part in COMMANDS[command]]
        monkeypatch.setattr("sys.argv", ["tuning", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert stop.value.code == 2, (name, err)
        assert out == ""
        assert len(err.splitlines()) == 1, name
        assert err.removesuffix("\n").isprintable(), name
        assert len(err) < 1200
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# --- links --------------------------------------------------------------------------------------


def test_a_line_is_not_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("no line of ours")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "theirs")
    with pytest.raises(ResultsError, match="is a symbolic link"):
        files.append_json_line(tmp_path / "events.jsonl", {"event": "x"})
    assert (tmp_path / "theirs").read_text() == "no line of ours"


def test_a_link_is_replaced_by_what_is_written_there(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "record.json").symlink_to(tmp_path / "theirs")
    files.write_json(tmp_path / "record.json", {"ours": 1})
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert files.read_json(tmp_path / "record.json") == {"ours": 1}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> ResultsRoot:
    """Return results with one small study, one of whose trials failed."""
    root = ResultsRoot(tmp_path_factory.mktemp("planted"))
    spec = StudySpec(
        name="planted",
        space=SearchSpace.model_validate({"HPARAM_CANDIDATES": {"lora_r": [4, 8]}}),
        base=build(SMALL, "test"),
    )
    write_planted_study(
        root,
        spec,
        always(Effect(spelling=0.2)),
        num_words=40,
        num_monitor_words=6,
        num_generated_items=18,
        exact_intervals=False,
        failed=[3],
    )
    return root


@pytest.mark.parametrize("whole", [False, True])
def test_cleaning_does_not_follow_a_link(planted: ResultsRoot, tmp_path: Path, whole: bool) -> None:
    import shutil

    shutil.copytree(planted.root, tmp_path / "results")
    root, theirs = ResultsRoot(tmp_path / "results"), tmp_path / "theirs"
    for training in list(root.trainings.iterdir()):
        training.rename(theirs / training.name) if theirs.exists() else shutil.copytree(
            training, theirs / training.name
        )
        if training.exists():
            shutil.rmtree(training)
        for name in ("checkpoints", "adapters", ".half"):
            (theirs / training.name / name).mkdir()
        training.symlink_to(theirs / training.name)
    before = sorted(theirs.rglob("*"))
    waste = find_waste(root, "planted", whole=whole)
    if whole:
        with pytest.raises(ResultsError, match="is a symbolic link"):
            remove_waste(root, "planted", waste)
    else:
        assert not waste.paths
        remove_waste(root, "planted", waste)
    assert [path for path in sorted(theirs.rglob("*")) if path.name != ".lock"] == before


# --- the report ---------------------------------------------------------------------------------

MARKER = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='alert(1)' {{7*7}}"
)


def everywhere(value: Any, keep: frozenset[str], name: str = "") -> Any:
    """Return an analysis with the marker behind every text of it that no table is looked up by."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: everywhere(getattr(value, f.name), keep, f.name)
            for f in dataclasses.fields(value)
            if f.init
        }
        return dataclasses.replace(value, **fields)
    if isinstance(value, enum.Enum) or name in keep:
        return value
    if isinstance(value, str):
        return value + MARKER
    if isinstance(value, dict):
        return {key: everywhere(inner, keep, name) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(
            *(everywhere(v, keep, n) for n, v in zip(value._fields, value, strict=True))
        )
    if isinstance(value, list | tuple):
        return type(value)(everywhere(inner, keep, name) for inner in value)
    return value


CLOSED = frozenset(
    (
        "task",
        "column",
        "status",
        "target",
        "stratum",
        "kind",
        "basis",
        "focus",
        "objective",
        "reading",
    )
)
"""Fields that hold one of a few words of ours, by which pages look things up."""


def test_no_text_of_an_analysis_becomes_an_element_of_the_page(planted: ResultsRoot) -> None:
    analysis = analyze(planted, "planted")
    hostile: StudyAnalysis = everywhere(analysis, CLOSED)
    texts = json.dumps(dataclasses.asdict(hostile), default=str)
    assert texts.count("onerror") > 100
    # Figures are drawn of the honest analysis where texts choose what is drawn, see
    # test_visualization.py; their captions and data are hostile here.
    charts = visualization.figures(analysis)
    page = report.render(hostile, charts)
    shown, honest = Page(page), Page(report.render(analysis, charts))
    for tag in ("script", "img", "style", "iframe", "object", "svg"):
        assert len(shown.all(tag)) == len(honest.all(tag)), tag
    for node in shown.root.iter():
        assert not [name for name in node.keys() if name.startswith("on")], node.tag
        assert "javascript:" not in "".join(node.get(n, "") for n in ("src", "href"))
    assert shown.text.count("{{7*7}}") > 20, "what looks like a template is text"
    assert "<script>alert" not in page
    assert "<img src=x" not in report.markdown(hostile)


# --- secrets and rights ---------------------------------------------------------------------------

MARK = "xqz7mark"
SECRETS = {
    "WANDB_API_KEY": "wandbxqz7mark" + "0" * 29,
    "LIGHTNING_API_KEY": "lightningkeyxqz7mark",
    "LIGHTNING_USER_ID": "lightninguserxqz7mark",
    "HF_TOKEN": "hf_tokenxqz7mark",
    "HF_ENDPOINT": "http://endpointuser:endpointxqz7mark@127.0.0.1:9",
    "WANDB_BASE_URL": "http://wandbuser:baseurlxqz7mark@127.0.0.1:9",
}


@pytest.mark.nightly
def test_no_secret_is_written_or_said_and_no_file_is_open_to_all(
    run_program: Callable[..., Any], tmp_path: Path
) -> None:
    experiment = small_mapping()
    for key in ("experiment_name", "timestamp"):
        del experiment[key]
    # With a weight decay of 10 every step multiplies the weights by -9, and the trial fails.
    experiment["training_config"] |= {"learning_rate": 1.0, "max_steps": 16, "warmup_steps": 0}
    space = {
        "experiment": experiment,
        "strategy": "listed",
        "pruning": "none",
        "replicates_of_default": 1,
        "configurations": [{"training_config.weight_decay": 10.0}],
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    env = {**SECRETS, "WANDB_MODE": "offline"}
    study = ("study", "run", "--space", "space.yaml", "--name", "s")
    said = []
    for arguments in (study, ("study", "status", "s", "--json"), ("report", "s", "--json")):
        done = run_program(*arguments, env=env)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    unreachable = run_program("models", "fetch", "owner/model", env=env)
    assert unreachable.returncode == 2
    said.append(unreachable.stderr)
    records = list(tmp_path.glob("results/tuning/data/s/trials/*/record.json"))
    assert {json.loads(r.read_text())["result"]["status"] for r in records} == {
        "completed",
        "failed",
    }
    for marker in (MARK, *SECRETS.values()):
        assert not any(marker in text for text in said), said
        for path in tmp_path.rglob("*"):
            assert not (path.is_file() and marker.encode() in path.read_bytes()), path
    for path in tmp_path.rglob("*"):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            assert not mode & stat.S_IWOTH, path
            assert not (path.is_file() and mode & 0o111), path


def test_keys_and_passwords_are_cut_out_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    text = " and ".join(SECRETS.values()) + " git+ssh://me:hunter2@host/x, http://host/a@b"
    cut = without_secrets(text)
    assert MARK not in cut
    assert "hunter2" not in cut
    assert "//***@host/x" in cut
    assert "http://host/a@b" in cut, "an @ behind the host is no password"


def test_a_failed_trial_keeps_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tuning.trial import TrialRequest, record_failure

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    folder = ResultsRoot(tmp_path).study("s").trial("t")
    request = TrialRequest(config=build(SMALL, "test"), folder=folder, trial_id="t")
    error = RuntimeError(" ".join(SECRETS.values()))
    record_failure(request, error, "2026-01-01T00:00:00+00:00")
    assert MARK not in folder.record.read_text()
    assert "RuntimeError" in folder.record.read_text()


# --- models ---------------------------------------------------------------------------------------


def test_code_of_a_model_folder_is_never_run_nor_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuning.errors import ModelError
    from tuning.model.base import tokenizer_of

    def asks(prompt: str = "") -> str:
        raise AssertionError(f"asks: {prompt}")

    monkeypatch.setattr("builtins.input", asks)
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (tmp_path / "own.py").write_text(trap)
    auto = {
        "AutoConfig": "own.C",
        "AutoModelForCausalLM": "own.M",
        "AutoTokenizer": [None, "own.T"],
    }
    settings_of = {"model_type": "own", "auto_map": auto, "architectures": ["M"]}
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps(settings_of))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(random.Random(0).randbytes(100))
    with pytest.raises(ModelError):
        tokenizer_of(str(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04}\x94.",
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        b"",
        *(
            len(head).to_bytes(8, "little") + head + b"\0" * 8
            for head in (
                b'{"a.layers.0.q.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,99999]}}',
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                b'{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}',
                b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}',
            )
        ),
    ],
)
def test_a_head_of_safetensors_that_lies_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    from tuning.errors import ModelError
    from tuning.model.hub import tensor_shapes

    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        tensor_shapes(tmp_path)
