"""A model in a folder of the user's own: its tokenizer, its template, trained and evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from model_support import END, byte_level_bpe, save_random_model

from tuning.errors import ModelError
from tuning.fingerprint import training_key
from tuning.model.base import load_base, tokenizer_of
from tuning.model.hub import local_folder
from tuning.model.tiny import tiny_folder
from tuning.paths import ResultsRoot
from tuning.tasks.items import Item, Task
from tuning.trial import TrialRequest, run_trial

QUESTION = "Spell the word parrot, letters separated by spaces.\n"


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("chat") / "qwen3", "qwen3")


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("plain") / "llama", "llama", template=None)


def test_a_chat_model_is_asked_in_its_template_with_thinking_off(chat_folder: Path) -> None:
    tokenizer = tokenizer_of(str(chat_folder))
    assert tokenizer.prompt_of(QUESTION, ()) == (
        f"{END}user: {QUESTION.strip()}\n{END}assistant: <think></think>"
    )
    shots = (("Spell the word at.\n", "a t"), ("Spell the word is.\n", "i s"))
    assert tokenizer.prompt_of(QUESTION, shots) == (
        f"{END}user: Spell the word at.\n{END}assistant: a t\n"
        f"{END}user: Spell the word is.\n{END}assistant: i s\n"
        f"{END}user: {QUESTION.strip()}\n{END}assistant: <think></think>"
    )


def test_the_template_itself_would_think_if_it_were_not_told(chat_folder: Path) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(chat_folder))
    message = [{"role": "user", "content": "Hello?"}]
    said = loaded.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert said == f"{END}user: Hello?\n{END}assistant: <think>"


def test_a_model_without_a_template_is_asked_in_plain_text(plain_folder: Path) -> None:
    tokenizer = tokenizer_of(str(plain_folder))
    assert tokenizer.prompt_of(QUESTION, ()) == QUESTION
    assert tokenizer.prompt_of(QUESTION, (("a?\n", "b"),)) == f"a?\nb\n{QUESTION}"


def test_ids_are_prompt_and_answer_and_end_without_any_token_added(chat_folder: Path) -> None:
    tokenizer = tokenizer_of(str(chat_folder))
    item = Item(
        task=Task.SPELLING, word="parrot", template="t", question=QUESTION, answer="p a r r o t"
    )
    (row,) = tokenizer.encode_items([item])
    backend = tokenizer.backend
    prompt = tokenizer.prompt_of(QUESTION, ())
    assert row.prompt == backend.encode(prompt, add_special_tokens=False).ids
    assert row.prompt.count(backend.token_to_id(END)) == 2
    assert row.answer[-1] == backend.token_to_id(END) == tokenizer.end_ids[0]
    assert tokenizer.decode(row.answer) == "p a r r o t"
    assert tokenizer.can_encode(["anything", "你好", "é"]) == [True] * 3
    assert "".join(tokenizer.cut(["parrot"])[0]) == " parrot"
    assert tokenizer.count_tokens(["parrot"]) == [len(tokenizer.cut(["parrot"])[0])]
    assert len(tokenizer.single_token_ids("abc")) == 3


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = save_random_model(tmp_path / "endless")
    PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe()).save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="has no end token"):
        tokenizer_of(str(folder))


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path, kind: str) -> None:
    folder = save_random_model(tmp_path / "bare", kind)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError) as caught:
        load_base(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        load_base(str(folder))
    assert "\n" not in str(caught.value)


# --- what a folder is known by ------------------------------------------------------------------


def test_what_is_trained_depends_on_the_weights_in_the_folder(
    small_config: Any, tmp_path: Path
) -> None:
    def key(folder: Path) -> str:
        return training_key(small_config(f"tokenizer_config.model_name={folder}"))

    a, same = save_random_model(tmp_path / "a"), save_random_model(tmp_path / "same")
    other = save_random_model(tmp_path / "other", seed=1)
    assert key(a) == key(same)
    assert key(a) != key(other)


def test_a_home_folder_is_the_same_as_its_whole_path(
    small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = save_random_model(tmp_path / "mine")
    whole, short = (
        training_key(small_config(f"tokenizer_config.model_name={name}"))
        for name in (folder, "'~/mine'")
    )
    assert local_folder("~/mine") == folder
    assert short == whole
    assert load_base("~/mine").weights_hash == load_base(str(folder)).weights_hash


def test_a_merged_tiny_in_the_home_folder_is_still_a_tiny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_folder(), tmp_path / "copy")
    assert tokenizer_of("~/copy").kept_ids == tokenizer_of("tiny").kept_ids


# --- trained and evaluated ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["chat_folder", pytest.param("plain_folder", marks=pytest.mark.nightly)]
)
def test_a_model_in_a_folder_trains_and_is_evaluated(
    request: pytest.FixtureRequest, small_config: Any, tmp_path: Path, kind: str
) -> None:
    folder: Path = request.getfixturevalue(kind)
    config = small_config(
        f"tokenizer_config.model_name={folder}",
        "max_steps=2",
        "evaluation_config.num_words=10",
        "evaluation_config.num_monitor_words=3",
        "evaluation_config.num_generated_items=9",
        "spelling_difficulty=hard",
    )
    root = ResultsRoot(tmp_path / "results")
    record = run_trial(
        TrialRequest(config=config, folder=root.study("s").trial("t"), trial_id="t"), root
    )
    result = record.result
    assert result.step == 2
    num_parameters = load_base(str(folder)).num_parameters
    assert result.model == f"{folder} ({num_parameters / 1e6:.2f} M parameters)"
    assert result.num_decoded == 18
    assert result.num_disagreements == 0
    for drift in result.retention.values():
        assert drift.reason is None
        assert drift.base_loss is not None
        assert drift.base_loss > 1
        assert drift.num_tokens > 100
    assert set(result.tasks) == {"spelling", "position", "count"}
    training = root.training(result.training_key)
    assert (training.adapter(2) / "adapter_model.safetensors").is_file()
