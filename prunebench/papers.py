"""Published numbers of a plugin's `paper.yaml`, one by one, each with its protocol and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench.errors import Invalid
from prunebench.plugins import check_schema, read_yaml

SCHEMA = Path(__file__).parent / "schemas" / "paper.schema.yaml"


@dataclass(frozen=True)
class Published:
    """One published number and everything that it must not travel without.

    quantity   `protocol:what`: perplexities have the key that records use, as in
               `ppl/llm-pruner:wikitext2-test@128`; `zeroshot/7:boolq` and `:mean` are in percent
    sparsity   fraction as the paper counts it; `sparsity_definition` says of what
    params     parameters of the plugin that tell the variant apart; others are not stated
    recovery   "none" or what it was tuned on
    arxiv      the paper; `table` and `version` say where in it, or in the authors' code
    evidence   read | quoted | recalled
    """

    model: str
    method: str
    label: str | None
    sparsity: float
    sparsity_definition: str
    native_ratio: float | None
    params: Mapping[str, Any]
    recovery: str
    quantity: str
    value: float
    arxiv: str
    table: str
    version: str
    evidence: str
    note: str | None

    @property
    def protocol(self) -> str:
        """The named protocol, as in `ppl/2048`."""
        return self.quantity.partition(":")[0]


def read_published(path: Path) -> tuple[Published, ...]:
    """All numbers of a `paper.yaml`. Raises Invalid, naming file and place, if it is not sound."""
    raw = read_yaml(path)
    check_schema(raw, read_yaml(SCHEMA), where=str(path))
    found: list[Published] = []
    for i, row in enumerate(raw["published"]):
        found += _numbers(row, raw["paper"]["arxiv"], f"{path}: published[{i}]")
    return tuple(found)


def _numbers(row: Mapping[str, Any], arxiv: str, where: str) -> list[Published]:
    quantities, values = row["quantities"], row["values"]
    if len(quantities) != len(values):
        raise Invalid(f"{where}: expected {len(quantities)} values, got {len(values)}")
    own = ("quantities", "values", "source")
    same = {"label": None, "note": None, **{k: v for k, v in row.items() if k not in own}}
    return [
        Published(quantity=quantity, value=value, arxiv=arxiv, **row["source"], **same)
        for quantity, value in zip(quantities, values, strict=True)
        if value is not None
    ]
