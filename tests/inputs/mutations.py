"""Mutations of a valid file: of its bytes, and of the values that it holds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, 1.0, 64.0, -0.0, 1e308, 2**31, 2**63, 10**400, float("nan"),
    float("inf"), "", "x", "ok", "failed", "../x", "a\n", "\udc80", "é", "x" * 300, [], {}, [None],
    [[]], {"": None}, {"status": "ok"}, {"a": [1, {"b": []}]},
)  # fmt: skip
CHUNKS = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"{",
    b"}",
    b"[",
    b'"',
    b",",
    b":",
    b"NaN",
    b"\xc3\xa9",
    b"- ",
)


def places(value: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested lists and mappings; () is the whole."""
    yield key
    pairs = value.items() if isinstance(value, dict) else ()
    for name, item in enumerate(value) if isinstance(value, list) else pairs:
        yield from places(item, (*key, name))


def changed(value: Any, key: tuple[Any, ...], change: Any, how: str) -> Any:
    """A copy with one place changed: set to a value, deleted, doubled, or with a key more."""
    made = copy.deepcopy(value)
    if not key:
        return change
    *parents, last = key
    inner = made
    for parent in parents:
        inner = inner[parent]
    if how == "delete":
        del inner[last]
    elif how == "add" and isinstance(inner, dict):
        inner["surprise"] = change
    elif how == "add":
        inner.insert(last, change)
    elif how == "swap" and isinstance(inner[last], (list, dict)):
        kept = inner[last]
        inner[last] = list(kept.values()) if isinstance(kept, dict) else dict(enumerate(kept))
    else:
        inner[last] = change
    return made


def mutated(value: Any) -> st.SearchStrategy[Any]:
    """Copies of nested plain data with one to three changes."""

    @st.composite
    def made(draw: Any) -> Any:
        found = value
        for _ in range(draw(st.integers(1, 3))):
            key = draw(st.sampled_from(list(places(found))))
            how = draw(st.sampled_from(("set", "set", "delete", "add", "swap")))
            found = changed(found, key, draw(st.sampled_from(ODD)), how)
        return found

    return made()


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Copies of a file's bytes: flipped, cut, or with something put in or taken out."""

    @st.composite
    def made(draw: Any) -> bytes:
        found = content
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, max(0, len(found) - 1)))
            how = draw(st.sampled_from(("flip", "cut", "insert", "drop", "double")))
            upto = at + draw(st.integers(1, 40))
            if how == "flip" and found:
                bit = 1 << draw(st.integers(0, 7))
                found = found[:at] + bytes([found[at] ^ bit]) + found[at + 1 :]
            elif how == "cut":
                found = found[:at]
            elif how == "insert":
                found = found[:at] + draw(st.sampled_from(CHUNKS)) + found[at:]
            elif how == "drop":
                found = found[:at] + found[upto:]
            else:
                found = found[:upto] + found[at:]
        return found

    return made()
