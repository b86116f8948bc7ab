"""Check local task files, document by document, before any model is touched.

A suite's entry declares what each document must hold, as `path: rule`. A path may be dotted
(`choices.text`). Rules:

    text                    a string that is not blank
    maybe_empty             a string
    integer                 a whole number, at least 0
    texts                   a list of two or more strings that are not blank
    {containing: S}         a string in which S occurs
    {one_of: [values]}      one of these values, type included (0 is neither "0" nor false)
    {as_many_as: path}      a list of strings, as long as the list at path
    {member_of: path}       one of the members of the list at path
    {index_of: path}        a 0-based index into the list at path, as a number or as digits
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import numbered_lines
from prunebench.untyped import Foreign, Json, JsonMap, Plain

Document = JsonMap


def read_documents(path: Path, fields: JsonMap) -> Iterator[Json]:
    """Yield the documents of a JSON-lines file, each checked against the declared fields.

    Raises Invalid, naming file, line (from 1) and field, at the first document that is wrong.
    """
    number = 0
    for number, line in numbered_lines(path):
        where = f"{path}: line {number}"
        document = _parse(line, where)
        for field, rule in fields.items():
            problem = _problem(document, field, rule)
            if problem:
                raise Invalid(f"{where}: field {field!r}: {problem}")
        yield document
    if number == 0:
        raise Invalid(f"{path}: the file is empty; expected one JSON object per line")


def count_documents(path: Path, fields: JsonMap) -> int:
    """Check a whole file and return its number of documents. Raises Invalid as above."""
    return sum(1 for _ in read_documents(path, fields))


def known_rule(rule: Plain) -> bool:
    """Whether a rule of a suite's entry is one of those that the module's docstring lists."""
    if isinstance(rule, str):
        return rule in PLAIN
    return isinstance(rule, dict) and len(rule) == 1 and next(iter(rule)) in WITH_ARGUMENT


def strings(document: Document, fields: JsonMap) -> list[str]:
    """The texts of a document that its declared fields hold, labels and letters left out."""
    found: list[str] = []
    for field, rule in fields.items():
        if rule in ("text", "maybe_empty", "texts") or (
            isinstance(rule, dict) and "containing" in rule
        ):
            value = _at(document, field)
            found.extend(value if isinstance(value, list) else [value])
    return [text for text in found if isinstance(text, str)]


def _parse(line: bytes, where: str) -> Json:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(
            f"{where}: not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}; "
            "convert the file to UTF-8"
        ) from error
    if not text.strip():
        raise Invalid(f"{where}: an empty line; expected one JSON object per line")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise Invalid(
            f"{where}: not a complete JSON object (column {error.colno}: {error.msg}); "
            "is the line truncated?"
        ) from error
    if not isinstance(document, dict):
        raise Invalid(f"{where}: expected a JSON object, got {_short(document)}")
    if "\\ud" in text.lower() and _is_torn(document):
        raise Invalid(
            f"{where}: a \\ud... escape that is half of a surrogate pair, so no character"
        )
    return document


def _is_torn(document: Document) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _problem(document: Document, field: str, rule: Plain) -> str | None:
    """What is wrong with one field of a document, or None."""
    try:
        value = _at(document, field)
    except KeyError:
        return f"is missing; the document has {', '.join(sorted(map(str, document))) or 'nothing'}"
    if isinstance(rule, str):
        return PLAIN[rule](value)
    name, argument = next(iter(rule.items()))
    return WITH_ARGUMENT[name](value, argument, document)


def _at(document: Document, field: str) -> Foreign:
    value: Plain = document
    for part in field.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(field)
        value = value[part]
    return value


def _text(value: Plain) -> str | None:
    if isinstance(value, str) and value.strip():
        return None
    return f"expected text, got {_short(value)}"


def _maybe_empty(value: Plain) -> str | None:
    return None if isinstance(value, str) else f"expected a string, got {_short(value)}"


def _integer(value: Plain) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return None
    return f"expected a whole number, at least 0, got {_short(value)}"


def _texts(value: Plain) -> str | None:
    if not isinstance(value, list) or len(value) < 2:
        return f"expected a list of two or more texts, got {_short(value)}"
    return next((problem for problem in map(_text, value) if problem), None)


def _containing(value: Plain, part: str, _: Document) -> str | None:
    if isinstance(value, str) and part in value:
        return None
    return f"expected text that contains {part!r}, got {_short(value)}"


def _one_of(value: Plain, allowed: list[Foreign], _: Document) -> str | None:
    if any(type(value) is type(option) and value == option for option in allowed):
        return None
    return f"expected one of {json.dumps(allowed)}, got {_short(value)}"


def _as_many_as(value: Plain, other: str, document: Document) -> str | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return f"expected a list of strings, got {_short(value)}"
    if len(value) != len(_list(document, other)):
        return f"expected {len(_list(document, other))} entries as in {other!r}, got {len(value)}"
    return None


def _member_of(value: Plain, other: str, document: Document) -> str | None:
    # The stock definitions strip some keys and not others: a blank around it is an error here.
    if value in _list(document, other):
        return None
    return f"expected one of {json.dumps(_list(document, other))}, got {_short(value)}"


def _index_of(value: Plain, other: str, document: Document) -> str | None:
    last = len(_list(document, other)) - 1
    digits = isinstance(value, str) and value.isdecimal() and value.isascii()
    whole = isinstance(value, int) and not isinstance(value, bool)
    if (digits or whole) and 0 <= int(value) <= last:
        return None
    return f"expected an index from 0 to {last}, got {_short(value)}"


def _list(document: Document, field: str) -> list[Foreign]:
    try:
        value = _at(document, field)
    except KeyError:
        return []
    return value if isinstance(value, list) else []


def _short(value: Plain) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


PLAIN: Mapping[str, Callable[[Foreign], str | None]] = {
    "text": _text,
    "maybe_empty": _maybe_empty,
    "integer": _integer,
    "texts": _texts,
}
WITH_ARGUMENT: Mapping[str, Callable[[Foreign, Foreign, Document], str | None]] = {
    "containing": _containing,
    "one_of": _one_of,
    "as_many_as": _as_many_as,
    "member_of": _member_of,
    "index_of": _index_of,
}
