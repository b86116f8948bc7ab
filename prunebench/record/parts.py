"""What the parts of a record share: exact types, and what stands for a part that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field

T = TypeVar("T")

Size = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Removed = Annotated[float, Field(le=1)]
"""A share that left; below 0 where a method adds more (biases) than it removes."""
Text = Annotated[str, Field(min_length=1)]
Bos = Literal["text", "window", "none"]


class RecordPart(BaseModel):
    """A part of a record; further keys are kept, since later versions may add some."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)


class Closed(RecordPart):
    """A part that has no other keys than those that are described."""

    model_config = ConfigDict(extra="forbid")


class Lost(RecordPart):
    """A part that could not be had."""

    status: Literal["failed", "skipped"] = Field(description="What became of it.")
    reason: Text = Field(description="Why the part is missing.")


def which(value: object) -> str:
    """The tag of a part that may be lost."""
    status = value.get("status") if isinstance(value, Mapping) else getattr(value, "status", None)
    return "<Lost>" if status in ("failed", "skipped") else "<there>"


EITHER = Discriminator(which)


def there(part: T | Lost | None) -> T | None:
    """A part that was measured, or None."""
    return None if isinstance(part, Lost) else part
