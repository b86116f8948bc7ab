"""YAML of plugins, papers and recipes against their JSON schemas: one line for what is wrong."""

from __future__ import annotations

from prunebench.errors import Invalid
from prunebench.untyped import JsonMap, Plain


def check_schema(value: Plain, schema: JsonMap, *, where: str) -> None:
    """Validate against a JSON schema. Raises Invalid with the first problem, naming its key."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    found = Draft202012Validator(schema).iter_errors(value)
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
