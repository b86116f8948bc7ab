"""The points at which a model is measured: batch x prompt x new tokens, each with a name."""

from __future__ import annotations

from dataclasses import dataclass

from prunebench.errors import Invalid


@dataclass(frozen=True)
class Point:
    """One working point: `batch` sequences, `prompt` tokens read at once, `new` tokens one by one.

    `new = 0` measures prefill only.

    Raises:
        Invalid: a size is not a whole number, or is too small.
    """

    name: str
    batch: int
    prompt: int
    new: int

    def __post_init__(self) -> None:
        for key, least in (("batch", 1), ("prompt", 1), ("new", 0)):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise Invalid(
                    f"profile point {self.name!r}: {key} must be a whole number of at least "
                    f"{least}, got {value!r}"
                )

    @classmethod
    def of(cls, *, batch: int, prompt: int, new: int) -> Point:
        """The point under its usual name, for example `b1-p64-n16`."""
        return cls(f"b{batch}-p{prompt}-n{new}", batch, prompt, new)

    @property
    def length(self) -> int:
        """Positions that a model must hold to run this point."""
        return self.prompt + self.new
