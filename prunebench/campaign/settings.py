"""The text that a campaign calibrates, tunes and measures on, as its file names it.

Defaults are filled in and names checked here; whether files are there is checked with the campaign.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prunebench.errors import Invalid, unknown
from prunebench.text.source import CORPORA, INSTRUCTIONS, Source, corpora_of

if TYPE_CHECKING:
    from prunebench.recovery import Tuning

CALIBRATION_DEFAULTS = {"split": "train", "samples": 10, "length": 128, "bos": "auto"}


def read_calibration(given: Mapping[str, Any] | None, file: str) -> Mapping[str, Any] | None:
    """`calibration` with its defaults. Raises Invalid for an unknown corpus."""
    if given is None:
        return None
    _check_corpora(f"{file}: calibration.corpus", given["corpus"])
    return {**CALIBRATION_DEFAULTS, **given}


def read_recovery(given: Mapping[str, Any] | None, file: str) -> Mapping[str, Any] | None:
    """`recovery` as it is, after a check. Raises Invalid for unknown data or a wrong setting."""
    if given is None:
        return None
    if given.get("instructions", next(iter(INSTRUCTIONS))) not in INSTRUCTIONS:
        where = f"{file}: recovery.instructions"
        raise Invalid(unknown(where, given["instructions"], INSTRUCTIONS))
    _check_corpora(f"{file}: recovery.text", given.get("text", ()))
    tuning_settings(given, where=f"{file}: recovery")
    return given


def read_protocols(entries: list[Any], file: str) -> list[Mapping[str, Any]]:
    """Every perplexity measurement written out: {name, corpus, split, length, mode, limit, bos}."""
    from prunebench.evaluation.protocols import NAMED

    written_out = []
    for i, entry in enumerate(entries):
        where = f"{file}: perplexity[{i}]"
        if isinstance(entry, str):
            if entry not in NAMED:
                raise Invalid(unknown(where, entry, NAMED))
            entry = NAMED[entry]
        common = {"mode": "windows", "limit": None, "bos": "auto"} | {
            key: entry[key] for key in ("name", "length", "mode", "limit", "bos") if key in entry
        }
        for corpus in entry["corpora"]:
            _check_corpora(f"{where}.corpora", corpus["corpus"])
            written_out.append({**common, "split": "test", **corpus})
    return written_out


def tuning_settings(recovery: Mapping[str, Any], *, where: str = "recovery") -> Tuning:
    """The Tuning of a campaign's `recovery`, which also names its data: `instructions` or `text`.

    Raises Invalid when it names none or both, or a setting is wrong.
    """
    from prunebench.recovery import Tuning

    if ("instructions" in recovery) == ("text" in recovery):
        raise Invalid(f"{where}: expected one of instructions (a data set) and text (a corpus)")
    settings = {k: v for k, v in recovery.items() if k not in ("instructions", "text")}
    if "text" in recovery:
        settings = {"template": "none", **settings}
    return Tuning.from_config(settings, where=where)


def tuning_records(recovery: Mapping[str, Any], source: Source) -> list[dict[str, str]]:
    """The records of a campaign's `recovery`: instructions, or passages of a corpus."""
    if "text" in recovery:
        return source.passages(recovery["text"])
    return source.instructions(recovery["instructions"])


def _check_corpora(where: str, given: str | Sequence[str]) -> None:
    for name in corpora_of(given):
        if name not in CORPORA:
            raise Invalid(unknown(where, name, CORPORA))


def tuning_name(recovery: Mapping[str, Any]) -> str:
    """Name of what a campaign tunes on: of its instruction data, or of its corpora."""
    return recovery.get("instructions") or " + ".join(corpora_of(recovery["text"]))
