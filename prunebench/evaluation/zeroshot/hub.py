"""What to say, in one line, when the hub cannot give a task's documents; and no waiting for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

from prunebench.errors import Failure


@contextmanager
def offline_when_unreachable(needed: bool) -> Iterator[None]:
    """Ask the hub once; if it does not answer, read the cache only instead of retrying for minutes.

    Without this, each data set is tried six times, with pauses that double. A proxy set in the
    environment is used, because the question goes through huggingface_hub's own session.
    """
    with ExitStack() as stack:
        if needed and not _answers():
            import datasets
            from huggingface_hub import constants

            stack.enter_context(mock.patch.object(constants, "HF_HUB_OFFLINE", True))
            stack.enter_context(mock.patch.object(datasets.config, "HF_HUB_OFFLINE", True))
        yield


def reason(task: str, wanted: str, files: Sequence[str], error: Exception) -> str:
    """Why this task alone is skipped. Raises Failure when the hub could not be reached at all."""
    if _is_connection(error):
        shown = files[0] if len(files) == 1 else f"{files[0]} ... {files[-1]}"
        raise Failure(
            f"{task}: the data set {wanted!r} is not in the local cache and the hub cannot be "
            f"reached; connect, or put the documents at <root>/zeroshot/{shown} and set the data "
            "source to local"
        ) from error
    return f"the hub does not provide {wanted!r}: {one_line(error)}"


def one_line(error: BaseException) -> str:
    """Type and message of an error on one line of at most 300 characters."""
    if type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        error = error.__cause__  # which alone says what is wrong
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def _answers() -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # the client's own exception classes differ between versions
        return False
    return True


def _is_connection(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that the network did not answer."""
    seen = 0
    while error is not None and seen < 10:
        names = {kind.__name__ for kind in type(error).__mro__}
        if isinstance(error, ConnectionError | TimeoutError):
            return True
        if names & {"TransportError", "LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
