"""YAML of plugins, papers and recipes against their JSON schemas: one line for what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from prunebench.errors import Invalid
from prunebench.untyped import Foreign, JsonMap, Plain


@cache
def validator() -> Foreign:
    """JSON schema, but 64.0 is no integer, and a pattern's `$` is the end: no line end follows."""
    from jsonschema import Draft202012Validator, ValidationError, validators

    def pattern(_: Foreign, wanted: str, given: Plain, __: Foreign) -> Iterator[ValidationError]:
        ends = wanted.endswith("$") and not wanted.endswith("\\$")
        if isinstance(given, str) and not re.search(wanted[:-1] + r"\Z" if ends else wanted, given):
            yield ValidationError(f"{given!r} does not match {wanted!r}")

    def integer(_: Foreign, given: Plain) -> bool:
        return isinstance(given, int) and not isinstance(given, bool)

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", integer)
    extend: Foreign = validators.extend
    return extend(Draft202012Validator, {"pattern": pattern}, type_checker=types)


def check_schema(value: Plain, schema: JsonMap, *, where: str) -> None:
    """Validate against a JSON schema. Raises Invalid with the first problem, naming its key."""
    from jsonschema.exceptions import best_match

    found = validator()(schema).iter_errors(value)
    errors = sorted(found, key=lambda e: [str(p) for p in e.absolute_path])
    if not errors:
        return

    error = best_match(errors)
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    raise Invalid(f"{where}: {key.lstrip('.') or 'top level'}: {_explain(error)}")


def _explain(error: Plain) -> str:
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known))
        return f"unknown key {', '.join(map(repr, unknown))}; known: {', '.join(known)}"
    return str(error.message)
