"""Protocols and recovery of a campaign file: defaults filled in, names checked. Imports no torch.

Whether files are there is checked with the campaign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue, RootModel

from prunebench.campaign.explain import checked
from prunebench.campaign.parts import PerplexityEntry
from prunebench.errors import Invalid, unknown
from prunebench.evaluation.protocols import NAMED, Protocol
from prunebench.text.source import CORPORA, INSTRUCTIONS, Source, corpora_of

if TYPE_CHECKING:
    from prunebench.recovery import RecoverySettings


class Recovery(RootModel[dict[str, JsonValue]]):
    """A campaign's `recovery`: settings of LoRA tuning, and the data that it is done on."""

    @property
    def instructions(self) -> str | None:
        """Name of the instruction data; None where plain text is tuned on."""
        name = self.root.get("instructions")
        return None if name is None else str(name)

    @property
    def text(self) -> tuple[str, ...]:
        """Corpora whose training splits are tuned on as plain text."""
        given = self.root.get("text", [])
        names = given if isinstance(given, list) else [given]
        return tuple(str(name) for name in names)

    @property
    def data(self) -> str:
        """Name of what is tuned on: of the instruction data, or of the corpora."""
        return self.instructions or " + ".join(self.text)

    def settings(self, *, where: str = "recovery") -> RecoverySettings:
        """How it is tuned. Raises Invalid for no data, for two kinds of it, or a wrong setting."""
        from prunebench.recovery import RecoverySettings

        if ("instructions" in self.root) == ("text" in self.root):
            raise Invalid(f"{where}: expected one of instructions (a data set) and text (a corpus)")
        given = {k: v for k, v in self.root.items() if k not in ("instructions", "text")}
        if "text" in self.root:
            given = {"template": "none", **given}
        return RecoverySettings.from_config(given, where=where)

    def records(self, source: Source) -> list[dict[str, str]]:
        """What is tuned on: instruction records, or passages of the corpora."""
        if self.instructions is not None:
            return source.instructions(self.instructions)
        return source.passages(self.text)


def read_recovery(given: Mapping[str, JsonValue] | None, file: str) -> Recovery | None:
    """`recovery` after a check. Raises Invalid for unknown data or a wrong setting."""
    if given is None:
        return None
    recovery = Recovery(dict(given))
    if recovery.instructions is not None and recovery.instructions not in INSTRUCTIONS:
        where = f"{file}: recovery.instructions"
        raise Invalid(unknown(where, recovery.instructions, INSTRUCTIONS))
    check_corpora(f"{file}: recovery.text", recovery.text)
    recovery.settings(where=f"{file}: recovery")
    return recovery


def read_protocols(entries: Sequence[str | PerplexityEntry], file: str) -> Iterator[Protocol]:
    """Every perplexity measurement of a campaign, named protocols written out."""
    for i, entry in enumerate(entries):
        where = f"{file}: perplexity[{i}]"
        if isinstance(entry, str):
            if entry not in NAMED:
                raise Invalid(unknown(where, entry, NAMED))
            entry = checked(PerplexityEntry, NAMED[entry], where=where)
        for corpus in entry.corpora:
            check_corpora(f"{where}.corpora", corpus.corpus)
            yield Protocol(
                name=entry.name,
                corpus=corpus.corpus,
                split=corpus.split,
                length=entry.length,
                mode=entry.mode,
                limit=entry.limit,
                bos=entry.bos,
            )


def check_once(protocols: Sequence[Protocol], file: str) -> None:
    """Raise Invalid where two measurements have one key, whatever the family: one would be lost."""
    for relies in (False, True):
        seen: dict[str, Protocol] = {}
        for protocol in protocols:
            key = protocol.for_family(relies_on_bos=relies).key
            if key in seen:
                same = "stands twice" if seen[key] == protocol else "is measured in two ways"
                raise Invalid(f"{file}: perplexity: {key} {same}; give one of them another name")
            seen[key] = protocol


def check_corpora(where: str, given: str | Sequence[str]) -> None:
    """Raise Invalid for a corpus that nobody knows."""
    for name in corpora_of(given):
        if name not in CORPORA:
            raise Invalid(unknown(where, name, CORPORA))
