"""A pretraining recipe: text, tokenizer, sizes and schedule, read from a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.schema import check_schema
from prunebench.text.source import CORPORA
from prunebench.untyped import JsonMap

SCHEMA = Path(__file__).parent.parent / "schemas" / "pretrain.schema.yaml"


@dataclass(frozen=True)
class Training:
    """The schedule; schemas/pretrain.schema.yaml describes each key."""

    minutes: float
    batch: int
    length: int
    peak_rate: float
    final_rate: float
    warmup: float = 0.02
    weight_decay: float = 0.1
    epsilon: float = 1e-8
    clip_norm: float = 1.0
    bos_share: float = 0.1
    checkpoint_s: float = 120.0


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a model besides its text, the seed and the speed of the machine."""

    name: str
    text: tuple[JsonMap, ...]
    vocabulary: int
    sample_mib: float
    model: JsonMap
    training: Training


def read_recipe(file: Path, *, minutes: float | None = None) -> Recipe:
    """Read and check a recipe; `minutes` replaces its budget. Raises Invalid naming the key."""
    raw = read_yaml(file)
    check_schema(raw, read_yaml(SCHEMA), where=str(file))
    for i, entry in enumerate(raw["text"]):
        if "corpus" in entry and entry["corpus"] not in CORPORA:
            known = ", ".join(CORPORA)
            where = f"{file}: text[{i}].corpus"
            raise Invalid(f"{where}: unknown corpus {entry['corpus']!r}; known: {known}")
    given = raw["training"]
    training = Training(**{"final_rate": 0.1 * given["peak_rate"], **given})
    if minutes is not None:
        training = replace(training, minutes=minutes)
    return Recipe(
        name=raw["name"],
        text=tuple(raw["text"]),
        vocabulary=raw["tokenizer"]["vocabulary"],
        sample_mib=raw["tokenizer"].get("sample_mib", 24.0),
        model=raw["model"],
        training=training,
    )
