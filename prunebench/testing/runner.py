"""pytest, which only the kit's own tests need: the extra `kit` brings it, the library does not."""

from __future__ import annotations

from types import ModuleType

from prunebench.errors import Invalid


def the_pytest() -> ModuleType:
    """The package pytest. Raises Invalid where it is not installed."""
    try:
        import pytest
    except ImportError:
        raise Invalid(
            "tests of a method or family are run by pytest, which is not installed; "
            "`pip install pytest` and try again"
        ) from None
    return pytest
