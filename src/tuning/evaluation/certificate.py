"""Proof, item by item, that scoring in one pass equals real greedy decoding."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from tuning import files
from tuning.errors import ResultsError
from tuning.evaluation.generation import greedy_texts
from tuning.evaluation.one_pass import OnePassScorer
from tuning.model.base import BaseModel, device_of
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.tasks.suite import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How often and how fast one pass gave the verdict of greedy decoding."""

    model: str
    weights: str
    """Names the weights: base or training, and step."""
    precision: str
    device: str
    num_items: int
    num_disagreements: int
    agreement: float
    """Rate in [0, 1]."""
    share_decoded: float
    """Share of items that one pass sent to real decoding; their time is counted in."""
    margin: float
    """Decisions closer than this were decoded; in logits."""
    one_pass_seconds: float
    greedy_seconds: float


def certify(
    base: BaseModel, scorer: OnePassScorer, suite: Suite, num_items: int, weights: str = ""
) -> Certificate:
    """Compare one pass with greedy decoding on items spread over the suite.

    Args:
        base: The model; an adapter may be on it.
        scorer: Its scorer.
        suite: Items to take from, all tasks and templates.
        num_items: How many to compare, at most all.
        weights: What the certificate says it is of.
    """
    chosen = suite.part(suite.spread(num_items))
    clock = time.perf_counter()
    predictions = scorer.score(chosen)
    one_pass_seconds = time.perf_counter() - clock
    clock = time.perf_counter()
    texts = greedy_texts(base.network, base.tokenizer, base.tokenizer.encode_items(chosen.items))
    greedy_seconds = time.perf_counter() - clock
    greedy = [
        text in (item.answer, *item.targets) for text, item in zip(texts, chosen.items, strict=True)
    ]
    num_disagreements = sum(
        a != b for a, b in zip(predictions["strict_correct"], greedy, strict=True)
    )
    return Certificate(
        model=base.says,
        weights=weights,
        precision=base.precision,
        device=str(device_of(base.network)),
        num_items=len(greedy),
        num_disagreements=num_disagreements,
        agreement=1 - num_disagreements / len(greedy),
        share_decoded=float(predictions["decoded_for_real"].mean()),
        margin=scorer.margin,
        one_pass_seconds=one_pass_seconds,
        greedy_seconds=greedy_seconds,
    )


# --- kept beside the weights --------------------------------------------------------------------

_CERTIFICATE = TypeAdapter(Certificate)


def store_certificate(folder: TrainingFolder, certificate: Certificate) -> None:
    """Keep the newest certificate of these weights, type of numbers and device.

    Raises:
        ResultsError: The disk refuses.
    """
    step = certificate.weights.partition("@")[2]
    name = f"{step}-{certificate.precision}-{certificate.device.replace(':', '')}"
    files.write_json(folder.certificate(name), dataclasses.asdict(certificate))


def stored_certificates(root: ResultsRoot) -> list[Certificate]:
    """Return all certificates under a results root; damaged ones are left out."""
    found = []
    for path in sorted(root.trainings.glob("*/certificates/*.json")):
        try:
            found.append(_CERTIFICATE.validate_python(files.read_json(path)))
        except (ResultsError, ValidationError):
            continue
    return found
