"""The tokens of Qwen3: the vocabulary, its English part, how words are cut, thinking mode.

`tokens/` counts, `figures/` draws; here the parts are put together and written to
`results/tuning/token_analysis/`. Run by `tuning tokens` and `tuning --mode token-analysis`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tuning import files
from tuning.config import ExperimentConfig
from tuning.errors import NotFoundError, ResultsError
from tuning.fingerprint import training_key, weights_key
from tuning.paths import DEFAULT_RESULTS_DIR, ResultsRoot, TokenAnalysisFolder
from tuning.qwen3_tokenizer import (
    MODEL,
    NUM_BASE_TOKENS,
    NUM_MODEL_ROWS,
    NUM_TOKENS,
    TOKENIZER_SHA256,
    Qwen3Tokenizer,
    qwen3_tokenizer,
)
from tuning.tasks.words import read_word_list
from tuning.tokens.categories import Category, categories_of, counted, counts_of
from tuning.tokens.subset import Subset, SubsetRule
from tuning.tokens.word_summaries import WordAnalysis
from tuning.tokens.words import Cuts, all_words, word_table

if TYPE_CHECKING:
    from tuning.tokens.texts import ThinkingTexts
    from tuning.tokens.thinking import ThinkingAnalysis

ALWAYS_LISTED = tuple(
    "apple banana computer algorithm intelligence understanding knowledge learning development "
    "hyperparameter".split()
)
"""Words that the list of multi-token words has even where they are one token."""
MAX_LETTERS = 100
"""Of a word in a user's list; the longest of ours has 34."""

OnProgress = Callable[[str], None]
"""Told what is being done."""


def analyze_qwen3_tokenizer(
    use_english_only: bool = False,
    analyze_thinking_mode: bool = False,
    *,
    results_dir: Path | str = DEFAULT_RESULTS_DIR,
    tokenizer: Path | None = None,
    subset_rule: SubsetRule | str = SubsetRule.PRINTABLE,
    word_list: Path | None = None,
    thinking_texts: ThinkingTexts | None = None,
    seed: int = 0,
    figures: bool = True,
    on_progress: OnProgress = lambda what: None,
) -> dict[str, Any]:
    """Analyse the vocabulary of Qwen3, and write all of it below `token_analysis/`.

    Args:
        use_english_only: Also return `english_token_count` and `english_token_percentage`, of all
            that english_vocab.json holds, and `english_rule_token_count`, of the rule alone.
        analyze_thinking_mode: Also compare texts of both modes.
        results_dir: Root of all results.
        tokenizer: A `tokenizer.json`, or a folder with one; by default it is looked for.
        subset_rule: Which tokens count as English.
        word_list: A user's words, one a line; by default the 271,525 of wordfreq.
        thinking_texts: What is compared; by default a few examples.
        seed: Of the comparison.
        figures: Whether to draw.
        on_progress: Told what is being done.

    Returns:
        What tokenizer_stats.json holds.

    Raises:
        ModelError: The tokenizer cannot be found, or is not genuine.
        NotFoundError: There is no such rule or word list.
        DataError: The word list holds what is no word, or nothing.
        ResultsError: The disk refuses.
    """
    folder = ResultsRoot(Path(results_dir)).token_analysis
    words = words_of(word_list)
    on_progress("reading the tokenizer")
    loaded = qwen3_tokenizer(tokenizer)
    subset = loaded.subset(SubsetRule.named(subset_rule))
    categories = categories_of(loaded.vocabulary)
    found = analyze_words(loaded, words, on_progress)
    thinking = _thinking(loaded, thinking_texts, seed) if analyze_thinking_mode else None

    stats = {
        **_vocabulary_json(loaded, categories, subset),
        **(_english_json(subset) if use_english_only else {}),
        **(thinking.to_json() if thinking else {}),
        "words": found.to_json(),
    }
    on_progress("writing")
    write_subset(folder, loaded, subset)
    write_words(folder, loaded, found)
    if figures:
        _draw(folder, _Drawn(loaded, subset, categories, found, thinking), on_progress)
    files.write_json(folder.stats, stats)
    written: dict[str, Any] = files.read_json(folder.stats)
    return written


# --- the vocabulary -----------------------------------------------------------------------------


def _vocabulary_json(
    loaded: Qwen3Tokenizer, categories: Mapping[int, Category], subset: Subset
) -> dict[str, Any]:
    vocabulary = loaded.vocabulary
    counts = counts_of(vocabulary, categories)
    kept = counted(categories[token] for token in subset.ids)
    return {
        "vocab_size": vocabulary.size,
        "special_tokens": {t.text: t.id for t in vocabulary.added if t.is_special},
        "other_added_tokens": {t.text: t.id for t in vocabulary.added if not t.is_special},
        "tokenizer": {
            "model": MODEL,
            "source": loaded.source.says,
            "path": str(loaded.source.path),
            "sha256": TOKENIZER_SHA256,
        },
        "sizes": {
            "base_tokens": NUM_BASE_TOKENS,
            "added_tokens": NUM_TOKENS - NUM_BASE_TOKENS,
            "tokens": NUM_TOKENS,
            "model_rows": NUM_MODEL_ROWS,
            "padding_rows": NUM_MODEL_ROWS - NUM_TOKENS,
        },
        "tokens_by_category": [
            {"category": category.value, "num_tokens": number, "num_english": kept[category]}
            for category, number in counted(categories.values()).items()
        ],
        "tokens_by_rule": {rule.value: number for rule, number in counts.by_rule.items()},
        "letters_with_leading_space": counts.with_leading_space,
        "not_utf8_alone": counts.not_utf8,
        "ascii_as_raw_strings": counts.raw_strings_ascii,
        "english_subset": subset_json(subset),
    }


def subset_json(subset: Subset, size: int = NUM_TOKENS) -> dict[str, Any]:
    """Return what is known of a subset.

    Args:
        subset: The English part.
        size: Tokens of the whole vocabulary.
    """
    return {
        "rule": subset.rule.value,
        "says": subset.rule.says,
        "num_tokens": len(subset.ids),
        "share": len(subset.ids) / size,
        "num_by_reason": dict(subset.counts),
        "sha256_of_ids": subset.hash,
        "vocabulary_size": size,
    }


def _english_json(subset: Subset) -> dict[str, Any]:
    return {
        "english_token_count": len(subset.ids),
        "english_token_percentage": 100 * len(subset.ids) / NUM_TOKENS,
        "english_rule_token_count": subset.counts["rule"],
    }


def write_subset(folder: TokenAnalysisFolder, loaded: Qwen3Tokenizer, subset: Subset) -> list[Path]:
    """Write the English part as a flat map of vocabulary strings to ids, ascending, and its facts.

    Raises:
        ResultsError: The disk refuses.
    """
    strings = {loaded.vocabulary.string(token): token for token in subset.ids}
    files.write_json_map(folder.english_vocab, strings)
    facts = {**subset_json(subset), "model": MODEL, "tokenizer_sha256": TOKENIZER_SHA256}
    facts["sha256_of_file"] = files.sha256_of_file(folder.english_vocab)
    files.write_json(folder.english_meta, facts)
    return [folder.english_vocab, folder.english_meta]


# --- words --------------------------------------------------------------------------------------


class Words(NamedTuple):
    """A list of words."""

    words: tuple[str, ...]
    source: str
    """Which list it is, in words."""


def words_of(path: Path | None) -> Words:
    """Return a user's words, or those of wordfreq.

    Raises:
        NotFoundError: There is no such file.
        DataError: A line is no word, or there is none.
    """
    if path is None:
        return Words(all_words(), "wordfreq's 300,000 English words")
    return Words(read_word_list(path, shortest=1, longest=MAX_LETTERS), path.name)


def analyze_words(
    loaded: Qwen3Tokenizer, words: Words, on_progress: OnProgress = lambda what: None
) -> WordAnalysis:
    """Return how the tokenizer cuts words."""

    def on_form(form: str) -> None:
        on_progress(f"cutting {len(words.words):,} words, {form}")

    table = word_table(loaded.backend, loaded.vocabulary, words.words, on_form)
    return WordAnalysis(words.source, table)


def write_words(
    folder: TokenAnalysisFolder, loaded: Qwen3Tokenizer, found: WordAnalysis
) -> list[Path]:
    """Write the words of several tokens, a row for each word, and the summaries as tables.

    Raises:
        ResultsError: The disk refuses.
    """
    files.write_atomic(folder.multi_token_words, multi_token_words(loaded, found))
    # Without what pandas notes beside it: it could not read its own name for lists again.
    rows = pa.Table.from_pandas(found.table, preserve_index=False).replace_schema_metadata()
    content = io.BytesIO()
    pq.write_table(rows, content)
    files.write_atomic(folder.words, content.getvalue())
    paths = [folder.multi_token_words, folder.words]
    for name, summary in found.summaries.items():
        paths.append(folder.table(name))
        files.write_atomic(paths[-1], summary.to_csv(index=False, lineterminator="\r\n"))
    return paths


def multi_token_words(loaded: Qwen3Tokenizer, found: WordAnalysis) -> str:
    """Return as JSON the tokens of each word that is several after a space, in the list's order.

    A mapping of words to `tokens`, strings of the vocabulary, and `token_count`. The ten words of
    `ALWAYS_LISTED` are there in any case, those that the list lacks at the end.
    """
    table = found.table
    is_listed = (table["num_tokens_spaced"] > 1) | table["word"].isin(ALWAYS_LISTED)
    listed = table[is_listed]
    missing = sorted(set(ALWAYS_LISTED).difference(listed["word"]), key=ALWAYS_LISTED.index)
    if missing:
        added = word_table(loaded.backend, loaded.vocabulary, missing)
        listed = pd.concat([listed, added])
    cuts = Cuts.of(listed["ids"])
    # A quarter of a million entries: put together by columns, where json would take seconds.
    tokens = cuts.joined(
        lambda token: json.dumps(loaded.vocabulary.string(token), ensure_ascii=False), ", "
    )
    numbers = pa.array(cuts.num_tokens_W).cast(pa.string())
    parts = (
        '"',
        pa.array(listed["word"], pa.string()),
        '": {"tokens": [',
        tokens,
        '], "token_count": ',
        numbers,
        "}",
    )
    entries = pc.binary_join_element_wise(*parts, "")
    return "{\n" + ",\n".join(entries.to_pylist()) + "\n}\n"


# --- thinking, figures --------------------------------------------------------------------------


def _thinking(loaded: Qwen3Tokenizer, texts: ThinkingTexts | None, seed: int) -> ThinkingAnalysis:
    from tuning.tokens.thinking import analyze_thinking

    return analyze_thinking(loaded, texts, seed=seed)


class _Drawn(NamedTuple):
    loaded: Qwen3Tokenizer
    subset: Subset
    categories: Mapping[int, Category]
    words: WordAnalysis
    thinking: ThinkingAnalysis | None


def _draw(folder: TokenAnalysisFolder, found: _Drawn, on_progress: OnProgress) -> None:
    """Write the figures, each as PNG, SVG and HTML."""
    from tuning.figures import thinking, tokens
    from tuning.visualization import save_chart

    source = tokens.Source("Tokenizer of Qwen3", found.subset.rule.value, found.words.source)
    counts = counted(found.categories.values())
    kept = counted(found.categories[token] for token in found.subset.ids)
    charts = {
        "token_distribution": tokens.draw_distribution(
            tokens.distribution_data(counts, kept), source
        ),
        "token_length": tokens.draw_length(
            tokens.length_data(found.loaded.vocabulary, found.subset.ids), source
        ),
        "tokens_per_word": tokens.draw_tokens_per_word(
            tokens.tokens_per_word_data(found.words.table), source
        ),
    }
    if found.thinking is not None:
        charts["thinking"] = thinking.draw_thinking(found.thinking)
    for name, chart in charts.items():
        on_progress(f"drawing {name}")
        save_chart(chart, folder.root, name, chart.title.text)


# --- a model's own outputs ----------------------------------------------------------------------


def own_outputs(config: ExperimentConfig, root: ResultsRoot) -> ThinkingTexts:
    """Return what the model of an experiment answered with thinking on and off, after its training.

    A trial writes it where `analyze_thinking_mode` is true; of several evaluations the newest
    counts.

    Raises:
        NotFoundError: The experiment was not run so, or its model has no thinking mode.
    """
    from tuning.tokens.texts import Mode, read_outputs

    folder, weights = root.training(training_key(config)), weights_key(config)
    found = [p for p in folder.answers_in_both_modes() if _weights_of(p.parent) == weights]
    if not found:
        raise NotFoundError(
            f"the model of this configuration left no answers with thinking on and off below "
            f"{root.trainings}; run it with analyze_thinking_mode: true, and give the "
            f"configuration with all overrides, as config.yaml of the trial has it"
        )
    newest = max(found, key=lambda path: path.stat().st_mtime)
    if not any(row.get("mode") == Mode.THINKING for row in files.read_json_lines(newest)):
        raise NotFoundError(
            f"{config.tokenizer_config.model_name} has no thinking mode, so its answers are of one "
            f"kind"
        )
    return read_outputs(newest)


def _weights_of(evaluation: Path) -> str | None:
    try:
        scores = files.read_json(evaluation / "scores.json")
    except (ResultsError, NotFoundError):
        return None
    return scores.get("weights") if isinstance(scores, dict) else None
