"""Pretraining of the embedded model `tiny`: `tuning models build-tiny`.

Owns what tiny sees before any trial. Known words: spelling, position and count in every format.
Known words and study words of the training split: letters to word, first and last letter, whether
a letter occurs, phrases to repeat. Plus arithmetic, days, months and a few foreign phrases.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from tuning import files
from tuning.errors import ConfigError
from tuning.model.tiny import EXTRA_TEMPLATES, FOREIGN_PHRASES, TinyVocabulary, choose_vocabulary
from tuning.model.tokenizer import EncodedItem, TextTokenizer
from tuning.qwen3_tokenizer import END_OF_TEXT_ID, TOKENIZER_SHA256, load_qwen3_tokenizer
from tuning.tasks import count, position, replay, spelling
from tuning.tasks.items import Item, Task
from tuning.tasks.splits import Split, split_words
from tuning.tasks.words import hash_of_words, keyed_rng

# Shapes: B rows, T tokens, A answer tokens of the batch, V vocabulary.


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainingSettings:
    """How tiny is built; the defaults are those of the shipped weights."""

    num_steps: int = 5000
    batch_size: int = 256
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    seed: int = 0
    hidden_size: int = 128
    num_layers: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.warmup_steps < self.num_steps:
            raise ConfigError(
                f"warm-up must take at least 2 steps and fewer than all {self.num_steps}, "
                f"got {self.warmup_steps}"
            )


@dataclass(frozen=True, slots=True)
class PretrainingWords:
    """Which words each kind of item may use."""

    known: Sequence[str]
    """Spelled, asked about, counted."""
    seen: Sequence[str]
    """Known words and study words of the training split."""


def pretraining_item(words: PretrainingWords, rng: random.Random) -> Item:
    """Return one item of the pretraining mixture."""
    kind = rng.random()
    known = words.known[int(rng.random() * len(words.known))]
    seen = words.seen[int(rng.random() * len(words.seen))]
    if kind < 0.30:
        return spelling.augmented_item(known, rng, spelling.TEMPLATES, spelling.SEPARATORS)
    if kind < 0.43:
        return position.random_item(known, rng)
    if kind < 0.62:
        return count.random_item(known, rng)
    if kind < 0.78:
        separator = spelling.SEPARATORS[int(rng.random() * len(spelling.SEPARATORS))]
        template = spelling.INVERSE_TEMPLATES[int(rng.random() * 2)]
        return spelling.inverse_item(seen, separator, template)
    if kind < 0.92:
        return _letter_evidence(seen, rng)
    if kind < 0.99:
        return replay.replay_item(words.seen, rng)
    return replay.repeat_item([FOREIGN_PHRASES[int(rng.random() * len(FOREIGN_PHRASES))]])


def _letter_evidence(word: str, rng: random.Random) -> Item:
    template = EXTRA_TEMPLATES[int(rng.random() * 3)]
    letter = chr(ord("a") + int(rng.random() * 26))
    if rng.random() < 0.5:
        letter = word[int(rng.random() * len(word))]
    answers: dict[str, Callable[[], str]] = {
        "first": lambda: word[0],
        "last": lambda: word[-1],
        "contains": lambda: "yes" if letter in word else "no",
    }
    return Item(
        task=Task.REPLAY,
        word=word,
        template=template.name,
        question=template.fill(word=word, letter=letter),
        answer=answers[template.name](),
    )


def every_template_filled() -> list[str]:
    """Return texts that hold every token that any template can need, beside those of words."""
    rng = keyed_rng("every-template")
    words = PretrainingWords(["planet", "aardvark"], ["planet", "aardvark"])
    texts = [t for _ in range(20_000) for t in _texts(pretraining_item(words, rng))]
    held_out = [
        i
        for s in spelling.SEPARATORS
        for t in spelling.TEMPLATES
        for i in _texts(spelling.spelling_item("planet", t, s))
    ]
    return sorted({_without_words(text) for text in {*texts, *held_out}})


def _texts(item: Item) -> tuple[str, str]:
    return item.question, item.answer


def _without_words(text: str) -> str:
    """Leave the wording alone: the tokens of words are chosen elsewhere."""
    for word in ("planet", "aardvark", "Planet", "Aardvark"):
        text = text.replace(word, "a")
    return text


def batches(
    words: PretrainingWords, tokenizer: TextTokenizer, settings: PretrainingSettings
) -> Iterator[list[EncodedItem]]:
    """Yield batches of rows of similar length; a pure function of the seed."""
    rows_ahead = 8 * settings.batch_size
    for block in range(10**9):
        rng = keyed_rng(settings.seed, "pretraining", block)
        items = [pretraining_item(words, rng) for _ in range(rows_ahead)]
        rows = sorted(tokenizer.encode_items(items), key=lambda row: len(row.prompt + row.answer))
        starts = list(range(0, rows_ahead, settings.batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield rows[start : start + settings.batch_size]


def answer_loss(model: Qwen3ForCausalLM, rows: Sequence[EncodedItem], pad_id: int) -> Tensor:
    """Return the mean cross-entropy of the answer tokens; prompts never reach the head."""
    length = max(len(row.prompt) + len(row.answer) for row in rows)
    ids_BT = torch.full((len(rows), length), pad_id)
    is_answer_BT = torch.zeros((len(rows), length), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids = row.prompt + row.answer
        ids_BT[i, : len(ids)] = torch.tensor(ids)
        is_answer_BT[i, len(row.prompt) : len(ids)] = True
    hidden_BTD = model.model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
    logits_AV = model.lm_head(hidden_BTD[is_answer_BT[:, 1:]])
    return torch.nn.functional.cross_entropy(logits_AV, ids_BT[:, 1:][is_answer_BT[:, 1:]])


def new_model(vocab_size: int, end_id: int, settings: PretrainingSettings) -> Qwen3ForCausalLM:
    """Return a randomly initialised model of tiny's shape."""
    torch.manual_seed(settings.seed)
    heads = settings.hidden_size // 32
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=settings.hidden_size,
            intermediate_size=3 * settings.hidden_size,
            num_hidden_layers=settings.num_layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            head_dim=32,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=end_id,
            pad_token_id=end_id,
        )
    )


def pretrain(
    folder: Path,
    settings: PretrainingSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Build tiny from nothing and write its files into `folder`.

    Args:
        folder: Gets model.safetensors, config.json, card.json and the two word lists.
        settings: Size, length and seed of the pretraining.
        on_step: Called after each step with the step, from 1, and its loss.

    Raises:
        ResultsError: The folder cannot be written.
    """
    started = time.monotonic()
    vocabulary = choose_vocabulary(every_template_filled())
    end_id = vocabulary.kept_ids.index(END_OF_TEXT_ID)
    tokenizer = TextTokenizer(load_qwen3_tokenizer(), (end_id,), vocabulary.kept_ids)
    study = split_words(vocabulary.words.study)
    known = vocabulary.words.pretraining
    words = PretrainingWords(known, (*known, *study[Split.TRAIN]))
    model = new_model(len(vocabulary.kept_ids), end_id, settings)
    _fit(model, batches(words, tokenizer, settings), end_id, settings, on_step)
    _save(folder, model, vocabulary, settings, time.monotonic() - started)


def _fit(
    model: Qwen3ForCausalLM,
    stream: Iterator[list[EncodedItem]],
    pad_id: int,
    settings: PretrainingSettings,
    on_step: Callable[[int, float], None],
) -> None:
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=settings.learning_rate,
        total_steps=settings.num_steps,
        pct_start=settings.warmup_steps / settings.num_steps,
        cycle_momentum=False,
    )
    for step in range(1, settings.num_steps + 1):
        loss = answer_loss(model, next(stream), pad_id)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        on_step(step, loss.item())


def _save(
    folder: Path,
    model: Qwen3ForCausalLM,
    vocabulary: TinyVocabulary,
    settings: PretrainingSettings,
    seconds: float,
) -> None:
    tensors = {
        name: t.contiguous() for name, t in model.state_dict().items() if name != "lm_head.weight"
    }
    files.write_atomic(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    files.write_atomic(folder / "config.json", model.config.to_json_string())
    for name, words in (
        ("pretraining", vocabulary.words.pretraining),
        ("study", vocabulary.words.study),
    ):
        files.write_atomic(folder / f"{name}_words.txt", "\n".join(words) + "\n")
    card = {
        "name": "tiny",
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "weights_sha256": files.sha256_of_file(folder / "model.safetensors"),
        "tokenizer_sha256": TOKENIZER_SHA256,
        "study_words_sha256": hash_of_words(vocabulary.words.study),
        "settings": dataclasses.asdict(settings),
        "minutes": round(seconds / 60, 1),
        "torch": torch.__version__.split("+")[0],
        "num_threads": torch.get_num_threads(),
        "kept_ids": list(vocabulary.kept_ids),
    }
    files.write_json(folder / "card.json", card)
