"""Verdicts and claims as tables to read and as frames with every digit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.quantities import KINDS
from prunebench.leaderboard.papers.claims import Judged
from prunebench.leaderboard.papers.verdicts import (
    CLOSE,
    CLOSE_FACTOR,
    NOT,
    NOT_COMPARABLE,
    REPRODUCED,
    TOLERANCES,
    UNCONFIRMED,
    Measured,
    Verdict,
)
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.columns import titles
from prunebench.leaderboard.views.tables import Table, TableCell
from prunebench.untyped import Json, Plain

if TYPE_CHECKING:
    import pandas as pd

RULE = (
    "A published number is compared only with a row of the same model, method, parameters, "
    "sparsity (as the paper counts it), protocol and tuning. **reproduced**: the measured mean is "
    "within the tolerance of the paper's number ("
    + ", ".join(
        f"{TOLERANCES[kind][0]} for {name}"
        for kind, name in (
            ("perplexity", "a perplexity"),
            ("zeroshot", "a mean accuracy"),
            ("task", "the accuracy of a task"),
            ("parameters", "a parameter count"),
        )
    )
    + f"); **close**: within {CLOSE_FACTOR} tolerances; **not reproduced**: beyond. Where the 95 % "
    "interval of the mean spans all three, or anything of the setting differs, the number is **not "
    "comparable**. What was only recalled, not read again, is **unconfirmed** and not judged."
)
CLAIM_RULE = (
    "A claim compares two rows, here on the models of this campaign. It **holds** where the "
    "difference has the claim's direction and its 95 % interval excludes zero, is **reversed** "
    "where it has the other, and **undecided** where the interval includes zero. Accuracies of "
    "two rows are compared item by item at the seeds that both have, also where they were "
    "evaluated on two devices: the interval is over items, for these seeds. With three seeds or "
    "more in both rows it is over seeds. Where a claim does not say whether it is about tuned "
    "rows, tuned ones are compared with tuned ones only. Size is the measured effect over the "
    "claimed one."
)
EVIDENCE = {"read": "read", "quoted": "quoted by others", "recalled": "recalled"}
ORDER = (REPRODUCED, CLOSE, NOT, NOT_COMPARABLE, UNCONFIRMED)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Numbers that have a measured one beside them."""
    rows = [_verdict_row(v, v.measured) for v in verdicts if v.measured is not None]
    header = ["Verdict", "Paper", "Source", "Evidence", "Model", "Row", "Sparsity", "Quantity"]
    header += ["Paper value", "Measured (n)", "Difference (95 % interval)", "Tolerance", "Reason"]
    align = ["left"] * 6 + ["right", "left"] + ["right"] * 4 + ["left"]
    return _table("Published numbers", header, align, rows)


def unmatched_table(verdicts: Sequence[Verdict]) -> Table:
    """How many published numbers have nothing to be compared with, by paper and reason."""
    counted = Counter(
        (verdict.published.arxiv, verdict.published.model, verdict.verdict, verdict.reason)
        for verdict in verdicts
        if verdict.measured is None
    )
    rows = [[f"arXiv {k[0]}", *k[1:], str(number)] for k, number in sorted(counted.items())]
    header = ("Paper", "Model", "Verdict", "Reason", "Numbers")
    return _table("Not comparable", header, ["left"] * 4 + ["right"], rows)


def claim_table(claims: Sequence[Judged]) -> Table:
    """Claims, judged or with the reason why not."""
    rows = [_claim_row(judged) for judged in claims]
    header = ["Verdict", "Paper", "Claim", "Evidence", "Claimed", "Model", "Rows", "Quantity"]
    header += ["Measured (95 % interval)", "Size", "Reason"]
    align = ["left"] * 4 + ["right"] + ["left"] * 3 + ["right"] * 2 + ["left"]
    return _table("Claims", header, align, rows)


def counted(verdicts: Sequence[Verdict]) -> str:
    """1 reproduced, 2 close, ...: how many published numbers got which verdict."""
    found = Counter(verdict.verdict for verdict in verdicts)
    return ", ".join(f"{found[name]} {name}" for name in ORDER)


def paper_frame(verdicts: Sequence[Verdict], claims: Sequence[Judged]) -> pd.DataFrame:
    """One line per published number (and row) and per claim (and pair of rows)."""
    import pandas as pd

    lines = [_number_line(verdict) for verdict in verdicts] + [_claim_line(c) for c in claims]
    return pd.DataFrame(lines, columns=COLUMNS)


COLUMNS = [
    *("what", "arxiv", "source", "version", "evidence", "campaign", "model", "label", "row"),
    *("against", "sparsity", "sparsity_definition", "native_ratio", "recovery", "params"),
    *("quantity", "form", "paper_value", "n", "measured", "sd", "low", "high", "difference"),
    *("difference_low", "difference_high", "tolerance", "size", "verdict", "reason", "note"),
]


def _number_line(verdict: Verdict) -> Json:
    number, measured = verdict.published, verdict.measured
    line = {
        "what": "number",
        "arxiv": number.arxiv,
        "source": number.table,
        "version": number.version,
        "evidence": number.evidence,
        "model": number.model,
        "label": number.label,
        "sparsity": number.sparsity,
        "sparsity_definition": number.sparsity_definition,
        "native_ratio": number.native_ratio,
        "recovery": number.recovery,
        "params": ", ".join(f"{k}={v}" for k, v in sorted(number.params.items())),
        "quantity": number.quantity,
        "paper_value": number.value,
        "tolerance": verdict.tolerance,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "note": number.note,
    }
    if measured is not None:
        line |= {"campaign": measured.campaign, "row": measured.row, "n": measured.n}
        line |= {"measured": measured.mean, "sd": measured.sd}
        line |= {"low": measured.low, "high": measured.high, "difference": verdict.difference}
        line["difference_low"] = measured.low - number.value
        line["difference_high"] = measured.high - number.value
    return line


def _claim_line(judged: Judged) -> Json:
    rule, quantity = judged.rule, judged.quantity
    return {
        "what": "claim",
        "arxiv": judged.arxiv,
        "source": judged.claim.source,
        "evidence": judged.claim.evidence,
        "campaign": judged.campaign or None,
        "model": judged.model or None,
        "row": judged.row or None,
        "against": judged.against or None,
        "sparsity": rule and rule.row.sparsity,
        "quantity": _quantity_text(quantity) if quantity else rule and _wanted(rule),
        "form": rule and rule.form,
        "paper_value": rule and rule.value,
        "measured": judged.ratio if rule and rule.form != "difference" else judged.value,
        "difference": judged.value,
        "difference_low": judged.low,
        "difference_high": judged.high,
        "size": judged.share,
        "verdict": judged.verdict,
        "reason": judged.reason,
        "note": judged.claim.text,
    }


def _verdict_row(verdict: Verdict, measured: Measured) -> list[str]:
    number = verdict.published
    show = _in_paper_units(measured.unit)
    spread = formats.MISSING if math.isnan(measured.sd) else show(measured.sd)
    ends = (measured.low - number.value, measured.high - number.value)
    return [
        verdict.verdict,
        f"arXiv {number.arxiv}",
        f"{number.table} ({number.version}), {number.label or number.method}",
        EVIDENCE[number.evidence],
        measured.model,
        measured.row,
        formats.percent(number.sparsity),
        number.quantity,
        show(number.value),
        f"{show(measured.mean)} ± {spread} ({measured.n})",
        _difference(measured.mean - number.value, *ends, show),
        verdict.tolerance_text,
        verdict.reason,
    ]


def _claim_row(judged: Judged) -> list[str]:
    rule = judged.rule
    claimed = measured = size = ""
    quantity = _wanted(rule) if rule else ""
    if rule is not None:
        claimed = f"{rule.value:+.4g}" if rule.form == "difference" else f"{rule.value:.3g} ×"
        claimed = claimed.replace("-", "−")
    if judged.quantity is not None and rule is not None:
        show = _in_paper_units(KINDS[rule.kind].unit)
        low, high = (math.nan if end is None else end for end in (judged.low, judged.high))
        measured = _difference(judged.value or 0.0, low, high, show)
        if rule.form == "value" and judged.ratio is not None:
            text = formats.interval(judged.ratio, 1 + low, 1 + high, "ratio", sign=False)
            measured = f"{text} ×"
        elif rule.form == "ratio" and judged.ratio is not None:
            measured = f"{judged.ratio:.2f} ×; {measured}"
        size = formats.MISSING if judged.share is None else f"{judged.share:.2f}"
        quantity = _quantity_text(judged.quantity)
    rows = judged.row + (f" against {judged.against}" if judged.against else "")
    source = f" ({judged.claim.source})" if judged.claim.source else ""
    return [
        judged.verdict,
        f"arXiv {judged.arxiv}",
        judged.claim.text + source,
        EVIDENCE[judged.claim.evidence],
        claimed,
        judged.model,
        rows,
        quantity,
        measured,
        size,
        judged.reason,
    ]


def _quantity_text(quantity: Plain) -> str:
    return titles([quantity])[0] + (f" at {quantity.name}" if quantity.kind in SPEED else "")


SPEED = ("prefill_speedup", "decode_speedup", "peak_allocated_mib")


def _wanted(rule: Plain) -> str:
    return f"{rule.kind} {rule.name or ''}".strip()


def _in_paper_units(unit: str) -> Callable[[float], str]:
    """Accuracies are in percent already; everything else is written as in the tables."""
    return lambda value: formats.plain(value, "points" if unit == "fraction" else unit)


def _difference(value: float, low: float, high: float, show: Callable[[float], str]) -> str:
    texts = [_signed(x, show) for x in (value, low, high)]
    return texts[0] if math.isnan(low) else f"{texts[0]} ({texts[1]} to {texts[2]})"


def _signed(value: float, show: Callable[[float], str]) -> str:
    text = show(value)
    return text.replace("-", "−") if value < 0 else "+" + text


def _table(title: str, header: Sequence[str], align: list[str], rows: list[list[str]]) -> Table:
    """A table; a last column in which nothing stands is left out."""
    if rows and not any(row[-1] for row in rows):
        header, align, rows = header[:-1], align[:-1], [row[:-1] for row in rows]
    cells = tuple(tuple(TableCell(formats.one_line(text)) for text in row) for row in rows)
    return Table(title, "", tuple(header), tuple(align), cells)
