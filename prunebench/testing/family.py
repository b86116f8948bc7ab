"""Check a model family in a folder of its own: what is asked of every family in the project."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid, PrunebenchError
from prunebench.pruning.architectures.folder import Family, read_family
from prunebench.testing.runner import one_for_each
from prunebench.untyped import Call

if TYPE_CHECKING:
    from prunebench.pruning.conformance import FamilyCase


def check_family(folder: Path | str) -> tuple[list[str], int]:
    """What is wrong with a family, in sentences that name the entry; and how many cases it has."""
    from prunebench.pruning.architectures import use

    try:
        family = use(Path(folder))
    except Invalid as error:
        return [str(error)], 0
    problems = [problem for i in range(len(family.cases)) for problem in check_case(family, i)]
    return list(dict.fromkeys(problems)), len(family.cases)


def family_tests(place: str) -> Call:
    """A test for pytest, one case for each of the family's, of the folder in which `place` lies.

    Raises Invalid where pytest is not installed.
    """
    path = Path(place)
    folder = path if path.is_dir() else path.parent
    names = [case["name"] for case in read_family(folder).cases]

    @one_for_each("case", range(len(names)), ids=names)
    def test(case: int) -> None:
        from prunebench.pruning.architectures import use

        problems = list(check_case(use(folder), case))
        assert not problems, "\n".join(problems)

    return test


def check_case(family: Family, number: int) -> Iterator[str]:
    """What is wrong with one case of a family."""
    from prunebench.pruning.architectures import structures_of
    from prunebench.pruning.conformance import (
        FamilyCase,
        check_entries,
        check_gates,
        check_kinds,
        check_masked,
    )

    case = FamilyCase(**family.cases[number])

    def losing() -> list[str]:
        """Kinds of which units can leave."""
        structures = structures_of(case.model(num_hidden_layers=2)).values()
        return list(dict.fromkeys(s.kind for s in structures if s.units > s.least))

    first = list(_said(family, case.name, partial(check_kinds, case)))
    yield from first
    if first:  # the rest would speak of the same
        return
    kinds = losing()
    for kind in kinds:
        about = f"{case.name}, {kind}"
        wrong = list(_said(family, about, partial(check_entries, case, kind)))
        yield from wrong or _said(family, about, partial(check_masked, case, (kind,)))
    everything = partial(check_masked, case, tuple(kinds))
    for check in (partial(check_gates, case), everything, partial(_check_saved, case, kinds)):
        yield from _said(family, case.name, check)


def _check_saved(case: FamilyCase, kinds: Sequence[str]) -> None:
    """Raise Failure unless a pruned model comes back as it was saved."""
    from prunebench.errors import Failure
    from prunebench.models import folders
    from prunebench.models.shapes import byte_tokenizer
    from prunebench.pruning.architectures import structures_of
    from prunebench.pruning.conformance import unevenly
    from prunebench.pruning.conformance.case import some_tokens
    from prunebench.pruning.structure import Decision
    from prunebench.pruning.surgery import logits, slice_model

    model = case.model()
    decision = Decision(unevenly(structures_of(model), tuple(kinds)))
    uniform = slice_model(model, decision)
    tokens = some_tokens(model)
    expected = logits(model, tokens)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "m"
        tokenizer = byte_tokenizer(model.config)
        folders.save(model, tokenizer, folder, uniform=uniform, decision=decision.to_json())
        found, _ = folders.load(folder)
        difference = (logits(found, tokens) - expected).abs().max().item()
    if not difference < 1e-5 * max(1.0, expected.abs().max().item()):
        raise Failure(
            f"{case.name}: saved and loaded, logits differ by {difference:.1e}: refresh() must set "
            "all that forward reads from the tensors, and say True only where the config says it"
        )


def _said(family: Family, about: str, check: Callable[[], None]) -> Iterator[str]:
    """What a check raises: its sentence, or an error with the family's line or the module."""
    from prunebench.plugins.watch import Watch

    try:
        check()
    except PrunebenchError as error:
        yield str(error)
    except Exception as error:  # a stranger's code may raise anything
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if where := Watch(family.folder, family.folder).line_of(error.__traceback__):
            yield f"{about}: {text} ({where})"
        elif module := _module_of(error):
            yield (
                f"{about}: after the cut, {module} does not fit what it is given ({text}): a "
                "coupling of its parameters, or of those before it, is missing or wrong"
            )
        else:
            yield f"{about}: {text}"


def _module_of(error: Exception) -> str | None:
    """Path of the innermost module of a model in whose forward an error was raised."""
    from torch import nn

    chain: list[nn.Module] = []
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            chain.append(module)
        trace = trace.tb_next
    return next((p for p, m in chain[0].named_modules() if m is chain[-1]), None) if chain else None
