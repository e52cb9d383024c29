"""The vocabulary sliced to English: the same model on fewer tokens, and what is dropped is said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import save_random_model
from torch import Tensor

from tuning import files
from tuning.composition import overridden
from tuning.config import ExperimentConfig
from tuning.errors import DroppedTokenError, ModelError, NotFoundError
from tuning.evaluation.on_demand import Question, evaluate_model
from tuning.evaluation.stored import evaluate_base
from tuning.fingerprint import training_key
from tuning.model.base import (
    BaseModel,
    encodable,
    read_base,
    subject_words,
    tokenizer_of,
    training_data_of,
)
from tuning.model.lora import fresh_adapter, save_adapter, stored_adapter
from tuning.model.vocabulary import slice_rows
from tuning.paths import ResultsRoot
from tuning.qwen3_tokenizer import load_qwen3_tokenizer
from tuning.tasks.prompts import Prompting
from tuning.tasks.splits import Split, split_subjects
from tuning.token_analysis import own_outputs
from tuning.tokens.subset import SubsetRule
from tuning.trial import TrialRequest, run_trial

RULES = list(SubsetRule)
TOLERANCE = 1e-4
"""Between logits of a sliced and a whole model in fp32, where logits reach 40: matrices of other
sizes are summed in another order."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a model with a tied head, one with a head of its own, and tiny."""
    root = tmp_path_factory.mktemp("models")
    made = {kind: str(save_random_model(root / kind, kind)) for kind in ("qwen3", "llama")}
    return {**made, "tiny": "tiny"}


def logits(base: BaseModel, text: str) -> Tensor:
    (ids,) = base.tokenizer.encode_batch([text])
    with torch.inference_mode():
        output: Tensor = base.network(torch.tensor([ids])).logits[0]
    return output


def a_prompt(base: BaseModel) -> str:
    word = subject_words(base.name).real[7]
    return base.tokenizer.prompt_of(f"Spell the word {word}, letters separated by spaces.\n", ())


# --- the sliced model -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["qwen3", "llama", "tiny"])
@pytest.mark.parametrize("rule", [SubsetRule.LETTERS, SubsetRule.PRINTABLE])
def test_a_sliced_model_gives_the_same_logits_on_the_tokens_that_are_left(
    folders: dict[str, str], kind: str, rule: SubsetRule
) -> None:
    whole = read_base(folders[kind], "32-true")
    sliced = read_base(folders[kind], "32-true", rule)
    assert sliced.tokenizer.subset is not None
    rows = whole.tokenizer.rows(sliced.tokenizer.subset.ids)
    assert len(rows) < whole.tokenizer.vocab_size
    text = a_prompt(whole)
    ours, all_of_them = logits(sliced, text), logits(whole, text)
    assert ours.shape == (all_of_them.shape[0], len(rows))
    assert float((ours - all_of_them[:, rows]).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("kind", ["qwen3", "llama", "tiny"])
def test_rows_settings_and_ends_are_those_of_the_subset(folders: dict[str, str], kind: str) -> None:
    whole = read_base(folders[kind], "32-true")
    sliced = read_base(folders[kind], "32-true", SubsetRule.LETTERS)
    network, size = sliced.network, sliced.tokenizer.vocab_size
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    assert embedding.weight.shape[0] == head.weight.shape[0] == size
    assert embedding.num_embeddings == head.out_features == network.config.vocab_size == size
    assert (head.weight is embedding.weight) is (kind != "llama")
    assert not any(p.requires_grad for p in network.parameters())
    assert sliced.num_parameters < whole.num_parameters
    ends = sliced.tokenizer.end_ids
    assert sliced.tokenizer.genuine(ends) == whole.tokenizer.genuine(whole.tokenizer.end_ids)
    for settings_ in (network.config, network.generation_config):
        for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
            ids = getattr(settings_, name)
            assert ids is None or all(0 <= i < size for i in torch.tensor(ids).flatten())
    assert network.config.eos_token_id == ends[0]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_really_drops_tokens_of_tiny(rule: SubsetRule) -> None:
    whole, sliced = tokenizer_of("tiny"), tokenizer_of("tiny", rule)
    assert sliced.subset is not None
    assert sum(sliced.subset.counts.values()) == sliced.vocab_size < whole.vocab_size
    assert set(sliced.subset.ids) < set(whole.kept_ids or ())
    with pytest.raises(DroppedTokenError, match=r"subset \w+ has no row for the token 'fé' \(id"):
        sliced.encode_batch(["ok", "café"])
    assert whole.can_encode(["café"]) == [True]


def test_a_token_that_tiny_never_had_is_said_of_the_subset_too() -> None:
    with pytest.raises(DroppedTokenError, match="' philosophy'"):
        tokenizer_of("tiny", SubsetRule.ASCII).encode_batch([" philosophy"])


def test_generation_says_tokens_of_the_subset_alone(folders: dict[str, str]) -> None:
    base = read_base(folders["llama"], "32-true")
    text = a_prompt(base)
    sliced = tokenizer_of(folders["llama"], SubsetRule.LETTERS)
    foreign = next(i for i in range(base.tokenizer.vocab_size) if not sliced.has(i))
    # Whatever the model would say, it now says that token louder.
    head = base.network.get_output_embeddings().weight.data
    head[foreign] = 10 * head[int(logits(base, text)[-1].argmax())]

    def said(base: BaseModel) -> list[int]:
        (prompt,) = base.tokenizer.encode_batch([text])
        ids = base.network.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False)
        return base.tokenizer.genuine(ids[0, len(prompt) :].tolist())

    assert foreign in said(base)
    assert sliced.subset is not None
    slice_rows(base.network, sliced.subset.ids)
    assert foreign not in said(dataclasses.replace(base, tokenizer=sliced))


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    folder = save_random_model(tmp_path / "m", "llama")
    word_level = Tokenizer(WordLevel({"<end>": 0, "▁the": 1}, unk_token="<end>"))
    fast = PreTrainedTokenizerFast(tokenizer_object=word_level, eos_token="<end>")
    fast.save_pretrained(folder)
    with pytest.raises(ModelError, match="no byte-level tokenizer: its vocabulary holds '▁'"):
        tokenizer_of(str(folder), SubsetRule.PRINTABLE)


# --- ids, words and prompts -------------------------------------------------------------------


@settings(deadline=None)
@given(data=st.data(), rule=st.sampled_from(RULES))
def test_remapping_and_its_inverse_are_identity(data: st.DataObject, rule: SubsetRule) -> None:
    sliced = tokenizer_of("tiny", rule)
    rows = data.draw(st.lists(st.integers(0, sliced.vocab_size - 1), max_size=30))
    assert sliced.rows(sliced.genuine(rows)) == rows
    assert sliced.subset is not None
    ids = data.draw(st.lists(st.sampled_from(sliced.subset.ids), max_size=30))
    assert sliced.genuine(sliced.rows(ids)) == ids


@settings(deadline=None, max_examples=50)
@given(
    word=st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=15),
    rule=st.sampled_from([rule for rule in RULES if rule.keeps_all_words]),
)
def test_rules_of_characters_keep_every_word(word: str, rule: SubsetRule) -> None:
    """Whatever the cut, pieces of a word are letters."""
    sliced = tokenizer_of("tiny", rule)
    (ids,) = sliced.backend.encode_batch([f" {word} {word.capitalize()}"])
    lost = {token for token in ids.ids if not sliced.has(token)}
    assert not [token for token in lost if tokenizer_of("tiny").has(token)]


def test_only_the_dictionary_leaves_fewer_words() -> None:
    whole = subject_words("tiny")
    for rule in RULES:
        words = subject_words("tiny", rule)
        if rule.keeps_all_words:
            assert words is whole
        else:
            assert set(words.all) < set(whole.all)
            assert encodable(words.real[:300], tokenizer_of("tiny", rule)) == words.real[:300]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("spelling_augmentation=false", "spelling_difficulty=easy"),
        ("spelling_difficulty=hard",),
        ("arm=direct",),
    ],
    ids=["default", "plain", "hard", "direct"],
)
def test_every_training_text_can_be_written_with_every_rule(
    small_config: Any, rule: SubsetRule, overrides: tuple[str, ...]
) -> None:
    config = subset_config(small_config, rule, *overrides)
    tokenizer = tokenizer_of("tiny", rule)
    words = split_subjects(subject_words("tiny", rule))[Split.TRAIN]
    stream = training_data_of(config, words, tokenizer).stream
    tokenizer.encode_items(stream.step(0, 1500))


@pytest.mark.parametrize("rule", RULES)
def test_every_way_to_ask_can_be_written_with_every_rule(rule: SubsetRule, tmp_path: Path) -> None:
    from tuning.config import EvaluationConfig
    from tuning.evaluation.bench import new_bench

    asked = split_subjects(subject_words("tiny", rule))[Split.VALIDATION]
    sizes = EvaluationConfig(num_words=12, num_monitor_words=3, num_generated_items=3)
    bench = new_bench("tiny", "32-true", sizes, asked, rule)
    for prompting in Prompting:
        assert len(evaluate_base(bench, ResultsRoot(tmp_path), prompting).predictions) > 80


@pytest.mark.parametrize("rule", RULES)
def test_a_chat_model_keeps_its_template_with_thinking_on_and_off(
    folders: dict[str, str], rule: SubsetRule
) -> None:
    sliced = tokenizer_of(folders["qwen3"], rule)
    assert sliced.thinking_prompt_of is not None
    question = "Name the 3rd letter of a. Only the letter.\n"
    prompts = [render(question, ()) for render in (sliced.prompt_of, sliced.thinking_prompt_of)]
    assert len(set(prompts)) == 2
    assert sliced.can_encode(prompts) == [True, True]


def test_qwen3_keeps_what_its_prompts_need_and_no_other_writing() -> None:
    from tuning.qwen3_tokenizer import qwen3_tokenizer

    qwen3 = qwen3_tokenizer()
    for rule in RULES:
        kept = set(qwen3.subset(rule).ids)
        user = {"role": "user", "content": "Count the letter r in a. Reply with a number."}
        for thinking in (False, True):
            text = qwen3.chat([user], thinking=thinking)
            assert set(load_qwen3_tokenizer().encode(text, add_special_tokens=False).ids) <= kept
        (foreign,) = load_qwen3_tokenizer().encode_batch(["你好"])
        assert not kept & set(foreign.ids)


# --- training on it ---------------------------------------------------------------------------


def subset_config(small_config: Any, rule: SubsetRule, *overrides: str) -> ExperimentConfig:
    config: ExperimentConfig = small_config(
        "use_english_only_tokens=true",
        f"tokenizer_config.subset_rule={rule.value}",
        *overrides,
    )
    return config


def request_of(config: ExperimentConfig, root: ResultsRoot) -> TrialRequest:
    return TrialRequest(config=config, folder=root.study("s").trial("t"), trial_id="t")


@pytest.mark.slow
def test_an_adapter_trained_on_the_subset_is_one_of_the_whole_model(
    small_config: Any, tmp_path: Path
) -> None:
    root = ResultsRoot(tmp_path)
    config = subset_config(small_config, SubsetRule.LETTERS)
    result = run_trial(request_of(config, root), root).result
    assert result.model.endswith("tokens: letters)")
    assert result.num_disagreements == 0
    training = root.training(result.training_key)
    adapter = training.adapter(result.step)
    whole = read_base("tiny", "32-true")
    sliced = read_base("tiny", "32-true", SubsetRule.LETTERS)
    assert sliced.tokenizer.subset is not None
    rows = whole.tokenizer.rows(sliced.tokenizer.subset.ids)
    text = a_prompt(whole)
    untouched = logits(whole, text)
    with stored_adapter(whole, adapter):
        on_whole = logits(whole, text)
    with stored_adapter(sliced, adapter):
        on_sliced = logits(sliced, text)
    assert float((on_whole - untouched).abs().max()) > 0.05
    assert float((on_whole[:, rows] - on_sliced).abs().max()) <= TOLERANCE

    # Asked on both vocabularies, the answers are kept apart; and untouched bases are two.
    sizes = config.evaluation_config
    places = {
        rule: evaluate_model(
            Question(model="tiny", adapter=adapter, sizes=sizes, subset=rule), root
        ).place
        for rule in (None, SubsetRule.LETTERS)
    }
    assert places[SubsetRule.LETTERS].name == result.evaluation_key
    assert places[None] != places[SubsetRule.LETTERS]
    assert places[None].parent == places[SubsetRule.LETTERS].parent == training.root / "evaluations"
    assert len(list(root.trainings.glob("base_*"))) == 2

    # The vocabulary is part of what a continuation must match.
    identity = files.read_json(training.identity)
    assert identity["vocabulary"] == sliced.tokenizer.subset.hash
    assert training_key(overridden(config, ["use_english_only_tokens=false"])) != training.root.name


@pytest.mark.parametrize("mistake", ["word", "replay", "suite"])
def test_what_needs_a_dropped_token_is_refused_by_name_before_training(
    small_config: Any, tmp_path: Path, mistake: str
) -> None:
    root = ResultsRoot(tmp_path / "results")
    own = tmp_path / "own.txt"
    overrides = {
        "word": f"spelling_config.word_list={own}",
        "replay": f"spelling_config.replay_file={own}",
        "suite": "",
    }[mistake]
    if mistake == "suite":
        own = tmp_path / "own.jsonl"
        asked = [{"task": "own", "prompt": f"What is {w}?", "answer": w} for w in ("at", "café")]
        own.write_text("".join(json.dumps(x) + "\n" for x in asked), encoding="utf-8")
        with pytest.raises(
            DroppedTokenError, match=r"own\.jsonl: the subset letters .* ' café' \(id"
        ):
            evaluate_model(Question(model="tiny", suite=own, subset=SubsetRule.LETTERS), root)
        return
    rule = SubsetRule.LETTERS
    if mistake == "word":
        rule = SubsetRule.DICTIONARY
        train = split_subjects(subject_words("tiny"))[Split.TRAIN].real
        lost = next(w for w in train if w not in set(subject_words("tiny", rule).real))
        own.write_text("\n".join([*train[:50], lost]))
    else:
        lines = [
            {"prompt": "Say yes.", "answer": "yes"},
            {"prompt": "Where is the café?", "answer": "there"},
        ]
        own.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    config = subset_config(small_config, rule, overrides, "spelling_difficulty=hard")
    with pytest.raises(DroppedTokenError, match=r"own\.txt: the subset \w+ has no row for") as said:
        run_trial(request_of(config, root), root)
    assert "subset_rule" in str(said.value)
    assert not list(tmp_path.glob("results/data/trainings/*/adapters"))


# --- thinking ---------------------------------------------------------------------------------


@pytest.mark.nightly
def test_a_trial_keeps_the_models_own_answers_in_both_modes(
    small_config: Any, folders: dict[str, str], tmp_path: Path
) -> None:
    expected = {folders["qwen3"]: {"thinking", "non_thinking"}, "tiny": {"non_thinking"}}
    for number, (model, modes) in enumerate(expected.items()):
        root = ResultsRoot(tmp_path / str(number))
        config = small_config(
            f"tokenizer_config.model_name={model}",
            "analyze_thinking_mode=true",
            "max_steps=2",
            "evaluation_config.num_words=10",
            "evaluation_config.num_monitor_words=3",
            "evaluation_config.num_generated_items=3",
            "evaluation_config.num_thinking_items=6",
            "evaluation_config.max_thinking_tokens=5",
        )
        result = run_trial(request_of(config, root), root).result
        place = root.training(result.training_key).thinking(result.evaluation_key)
        rows = files.read_json_lines(place)
        assert {row["mode"] for row in rows} == modes
        assert len(rows) == 6 * len(modes)
        assert {row["task"] for row in rows} == {"spelling", "position", "count"}
        by_mode = {m: [r["prompt"] for r in rows if r["mode"] == m] for m in modes}
        assert all(r["text"] and r["gold"] for r in rows)
        if model != "tiny":
            assert all(p.endswith("<think>") for p in by_mode["thinking"])
            assert all(p.endswith("<think></think>") for p in by_mode["non_thinking"])

        # The analysis finds them by the experiment; a model of one mode has nothing to compare.
        if model == "tiny":
            with pytest.raises(NotFoundError, match="tiny has no thinking mode"):
                own_outputs(config, root)
        else:
            texts = own_outputs(config, root)
            assert [len(texts.thinking), len(texts.direct)] == [6, 6]
        other = overridden(config, ["training_config.seed=5"])
        with pytest.raises(NotFoundError, match="analyze_thinking_mode: true"):
            own_outputs(other, root)

        # What is there is not asked again; what is too short is.
        files.write_json_lines(place, [{**rows[0], "text": "kept"}, *rows[1:]])
        run_trial(request_of(config, root), root)
        assert files.read_json_lines(place)[0]["text"] == "kept"
        longer = overridden(config, ["evaluation_config.max_thinking_tokens=6"])
        assert run_trial(request_of(longer, root), root).result == result
        assert files.read_json_lines(place)[0]["max_tokens"] == 6


def test_an_adapter_of_a_subset_holds_no_embedding(tmp_path: Path) -> None:
    from safetensors import safe_open

    from tuning.config import LoraConfig

    sliced = read_base("tiny", "32-true", SubsetRule.LETTERS)
    with fresh_adapter(sliced, LoraConfig(r=2), 0) as adapted:
        save_adapter(adapted, tmp_path / "a")
    with safe_open(str(tmp_path / "a" / "adapter_model.safetensors"), "pt") as tensors:
        assert all("lora_" in key for key in tensors.keys())


def test_a_qwen3_model_trains_on_the_tokens_that_the_analysis_saves(tmp_path: Path) -> None:
    import shutil

    from tuning.qwen3_tokenizer import qwen3_tokenizer

    folder = save_random_model(tmp_path / "m", "qwen3")
    source = qwen3_tokenizer().source.path.parent
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    (folder / "chat_template.jinja").unlink()
    for rule in RULES:
        subset = tokenizer_of(str(folder), rule).subset
        assert subset == qwen3_tokenizer().subset(rule)
        assert subset is not None
        assert len(subset.ids) % 8 == 0
