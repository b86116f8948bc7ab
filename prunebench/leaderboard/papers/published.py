"""What a plugin's `paper.yaml` publishes: numbers one by one and claims, each with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.plugins.discovery import Plugin
from prunebench.schema import check_schema
from prunebench.untyped import JsonMap

SCHEMA = Path(__file__).parent.parent.parent / "schemas" / "paper.schema.yaml"


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
    params: JsonMap
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


@dataclass(frozen=True)
class ClaimSide:
    """One side of a claim: rows of a method with these parameters, tuned by the suite or not."""

    method: str
    params: JsonMap
    recovery: bool | None
    sparsity: float


@dataclass(frozen=True)
class Rule:
    """How a claim is judged: `row` against `against`, on every model that has both.

    kind, name  the quantity as the report names it, as in perplexity of wikitext2
    form        difference (row - against), ratio (row / against), or value: of the row alone, for
                a speed-up, which is over dense already; `value` is the paper's
    """

    kind: str
    name: str | None
    row: ClaimSide
    against: ClaimSide | None
    form: str
    value: float


@dataclass(frozen=True)
class Claim:
    """A statement of a paper; without rules it is shown and not judged."""

    text: str
    source: str
    evidence: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Paper:
    """One `paper.yaml`, and what its methods' plugins say.

    defaults       parameters of each method that it has numbers of
    sets_sparsity  those of them that set the sparsity, which is compared by itself
    """

    title: str
    arxiv: str
    published: tuple[Published, ...]
    claims: tuple[Claim, ...]
    defaults: Mapping[str, JsonMap]
    sets_sparsity: Mapping[str, tuple[str, ...]]


def read_papers(plugins: Mapping[str, Plugin]) -> tuple[Paper, ...]:
    """The papers of these plugins (those that have one), in the order of their names."""
    folders = [plugin.folder for _, plugin in sorted(plugins.items())]
    return tuple(
        read_paper(folder / "paper.yaml", plugins)
        for folder in folders
        if (folder / "paper.yaml").is_file()
    )


def read_paper(path: Path, plugins: Mapping[str, Plugin]) -> Paper:
    """A whole `paper.yaml`. Raises Invalid, naming file and place, if it is not sound."""
    published = read_published(path)
    raw = read_yaml(path)
    methods = {number.method for number in published} & plugins.keys()
    return Paper(
        title=raw["paper"]["title"],
        arxiv=raw["paper"]["arxiv"],
        published=published,
        claims=tuple(_claim(entry) for entry in raw.get("claims", ())),
        defaults={name: plugins[name].params({}, where=name) for name in sorted(methods)},
        sets_sparsity={name: plugins[name].sets_sparsity for name in sorted(methods)},
    )


def read_published(path: Path) -> tuple[Published, ...]:
    """All numbers of a `paper.yaml`. Raises Invalid, naming file and place, if it is not sound."""
    raw = read_yaml(path)
    check_schema(raw, read_yaml(SCHEMA), where=str(path))
    found: list[Published] = []
    for i, row in enumerate(raw["published"]):
        found += _numbers(row, raw["paper"]["arxiv"], f"{path}: published[{i}]")
    return tuple(found)


def _claim(entry: JsonMap) -> Claim:
    rules = tuple(_rule(rule) for rule in entry.get("judged", ()))
    return Claim(entry["claim"], entry.get("source", ""), entry["evidence"], rules)


def _rule(rule: JsonMap) -> Rule:
    kind, _, name = rule["quantity"].partition(":")

    def side(given: JsonMap) -> ClaimSide:
        sparsity = given.get("sparsity", rule["sparsity"])
        return ClaimSide(given["method"], given.get("params", {}), given.get("recovery"), sparsity)

    row, against = side(rule["row"]), side(rule["against"]) if "against" in rule else None
    if (against is None) != (rule["form"] == "value"):
        raise Invalid(f"claim on {rule['quantity']}: form value is for a row alone, others for two")
    return Rule(kind, name or None, row, against, form=rule["form"], value=rule["value"])


def _numbers(row: JsonMap, arxiv: str, where: str) -> list[Published]:
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
