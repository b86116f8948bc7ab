"""The part of a record that names its decision's file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from prunebench.record.parts import EITHER, Closed, Lost, Size, Text


class DeltaFile(Closed):
    """The weights that were changed beside the cut."""

    status: Literal["ok"] = Field("ok", description="ok when they were kept.")
    file: Text = Field(description="Its name, beside the record.")
    sha256: Text = Field(description="Its digest.")
    bytes: Size = Field(description="Its size.")


MaybeDelta = Annotated[
    Annotated[DeltaFile, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER
]


class DecisionKept(Closed):
    """The file from which, with the dense checkpoint, `prunebench apply` makes the weights."""

    status: Literal["ok"] = Field("ok", description="ok when it was kept.")
    file: Text = Field(description="Its name, beside the record.")
    sha256: Text = Field(description="Its digest.")
    bytes: Size = Field(description="Its size.")
    delta: MaybeDelta | None = Field(
        None,
        description="The changed weights; null: none were. Lost where they are too many: then the "
        "decision says what was kept, and the weights cannot be made from it.",
    )


MaybeDecision = Annotated[
    Annotated[DecisionKept, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER
]
