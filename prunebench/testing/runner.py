"""pytest, which only the kit's own tests need: the extra `kit` brings it, the library does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prunebench.errors import Invalid
from prunebench.untyped import Call


def one_for_each(
    argument: str, values: Iterable[object], ids: Sequence[str] | None = None
) -> Callable[[Call], Call]:
    """Decorator that makes a test of pytest one case for each value of an argument.

    Raises Invalid where pytest is not installed.
    """
    try:
        import pytest
    except ImportError:
        raise Invalid(
            "tests of a method or family are run by pytest, which is not installed; "
            "`pip install 'prunebench[kit]'` brings it; `prunebench check-method` and "
            "`prunebench check-family` need none"
        ) from None
    decorator: Callable[[Call], Call] = pytest.mark.parametrize(argument, values, ids=ids)
    return decorator
