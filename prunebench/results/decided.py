"""Is the decision that lies beside a record that record's own?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prunebench.campaign.paths import CellPaths
from prunebench.decisions import form
from prunebench.errors import Invalid
from prunebench.files import sha256
from prunebench.record.form import Record
from prunebench.record.parts import there


def faults(own: CellPaths, record: Record) -> Iterator[tuple[Path, str]]:
    """Each file and what is wrong with it.

    A record that names a decision must have it, by digest. One of a version that kept none may have
    one that was made later: it must lead to the record's weights.
    """
    path, said = own.decision_file, there(record.decision_file)
    if not path.is_file():
        if said is not None:
            yield path, "is missing; the record names it"
        return
    if said is not None and sha256(path) != said.sha256:
        yield path, "is not the decision that the record names"
        return
    try:
        file = form.read(path)
    except Invalid as error:
        yield path, str(error).removeprefix(f"{path}: ")
        return
    weights = record.model.weights_sha256 if record.model else None
    if file.weights_sha256 != weights:
        yield path, "leads to other weights than the record's"
    if own.delta.is_file():
        try:
            form.check_delta(path, file)
        except Invalid as error:
            yield own.delta, str(error).removeprefix(f"{own.delta}: ")


def without_delta(own: CellPaths, record: Record) -> Iterator[tuple[Path, str]]:
    """The delta that a record names and that was not handed on: it may be large."""
    said = there(record.decision_file)
    delta = there(said.delta) if said is not None else None
    if delta is not None and not own.delta.is_file():
        yield own.delta, f"was not handed on ({delta.bytes:,} bytes)"
