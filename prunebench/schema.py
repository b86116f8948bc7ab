"""Validators of JSON schemas; without the package jsonschema, ones that find nothing and say so."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)


class Unchecked:
    """Stands in for a validator on a machine that has only what measuring needs."""

    def iter_errors(self, _: Any) -> list[Any]:
        """No errors, and a warning the first time."""
        _warn()
        return []


@cache
def _warn() -> None:
    logger.warning("files are not checked: the package jsonschema is not installed")


def validator_of(schema: Any) -> Any:
    """A validator with `iter_errors(value)`."""
    try:
        import jsonschema
    except ImportError:
        return Unchecked()
    return jsonschema.Draft202012Validator(schema)
