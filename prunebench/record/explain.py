"""What is wrong with a record, in one line: the key, what was expected, what came."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from prunebench.record.form import Record
from prunebench.untyped import Plain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LIMITS = {
    "greater_than_equal": ("minimum", "ge"),
    "greater_than": ("exclusiveMinimum", "gt"),
    "less_than_equal": ("maximum", "le"),
    "less_than": ("exclusiveMaximum", "lt"),
    "string_too_short": ("minLength", "min_length"),
    "too_short": ("minItems", "min_length"),
    "too_long": ("maxItems", "max_length"),
    "string_pattern_mismatch": ("pattern", "pattern"),
}
TYPES = {
    "int": "integer", "float": "number", "string": "string", "bool": "boolean", "list": "array",
    "none": "null", "finite": "number",
}  # fmt: skip
BRANCHES = ("int", "float")
"""Names that pydantic adds to the place of an error for the branches of `int | float`."""


def explained(error: ValidationError) -> str:
    """The first of a record's faults by key, and how many more there are."""
    faults: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        parts = [p for p in fault["loc"] if not str(p).startswith("<")]
        if len(parts) > 1 and parts[-1] in BRANCHES:
            parts.pop()
        faults.setdefault(_key(parts), _words(fault, parts))
    first = min(faults)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{first}: {faults[first]}{more}"


def short(value: object, width: int = 80) -> str:
    """A value for a message, cut where it is long."""
    text = str(value) if isinstance(value, list) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def _words(fault: ErrorDetails, parts: Sequence[int | str]) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return f"unknown key; known: {', '.join(sorted(_form_at(parts[:-1]).model_fields))}"
    got = short(fault["input"])
    if kind == "literal_error":
        choices = context["expected"].replace(" or ", ", ")
        word = "enum" if "," in choices else "const"
        return f"expected {word} {f'[{choices}]' if word == 'enum' else choices}, got {got}"
    if kind in LIMITS:
        word, name = LIMITS[kind]
        limit = context[name]
        number = f"{limit:g}" if isinstance(limit, float) else limit
        return f"expected {word} {number}, got {got}"
    name = TYPES.get(kind.partition("_")[0], "object")
    return f"expected type {name!r}, got {got}"


def _key(parts: Sequence[int | str]) -> str:
    key = ""
    for part in parts:
        key = f"{key}[{part}]" if isinstance(part, int) else f"{key}.{part}" if key else part
    return key or "top level"


def _form_at(parts: Sequence[int | str]) -> type[BaseModel]:
    """The form of the part of a record that lies at this key."""
    form: type[BaseModel] = Record
    for part in parts:
        if field := form.model_fields.get(str(part)):
            form = next(_forms(field.annotation), form)
    return form


def _forms(annotation: Plain) -> Iterator[type[BaseModel]]:
    """The forms that an annotation names, outermost first, `Lost` last of a pair."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _forms(inner)
