"""What is wrong with a campaign file, in one line: file, key, what was expected, what came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from prunebench.errors import Invalid

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound=BaseModel)
BOUNDS = {
    "greater_than_equal": ("ge", "is less than the minimum of"),
    "greater_than": ("gt", "is less than or equal to the minimum of"),
    "less_than": ("lt", "is greater than or equal to the maximum of"),
}
TYPES = {
    "int": "integer", "float": "number", "string": "text", "bool": "true or false",
    "tuple": "list", "dict": "mapping", "model": "mapping", "mapping": "mapping",
}  # fmt: skip
KEY = re.compile("[a-z_]+")


def checked(form: type[T], value: object, *, where: str) -> T:
    """`value` as an instance of `form`. Raises Invalid with the first problem, naming its key."""
    try:
        return form.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = min(problems, key=lambda problem: [str(part) for part in problem["loc"]])
        key = _key(first["loc"])
        raise Invalid(f"{where}: {key or 'top level'}: {_words(first)}") from None


def _key(location: Sequence[int | str]) -> str:
    """`models[0].kind`; the names that pydantic gives to the branches of a union are left out."""
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        elif KEY.fullmatch(part):  # not of `<name>`, a branch of a union
            key += f".{part}" if key else part
    return key


def _words(problem: ErrorDetails) -> str:
    kind, got, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind in ("key", "twice", "digits"):
        return problem["msg"]
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        return f"{got!r} {words} {context[name]}"
    if kind == "string_too_long":
        return f"has {len(got)} characters, at most {context['max_length']} fit into a file name"
    if kind == "too_short":
        return f"{list(got)!r} should be non-empty"
    if kind == "literal_error":
        return f"{got!r} is not one of {context['expected'].replace(' or ', ', ')}"
    if kind == "string_pattern_mismatch":
        return f"{got!r} does not match {context['pattern']!r}"
    for start, name in TYPES.items():
        if kind == f"{start}_type":
            return f"{got!r} is not of type {name}"
    return f"{problem['msg']}, got {got!r}"
