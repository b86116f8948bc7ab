"""The page: one HTML file with everything in it, which opens from disk and asks no network.

Tables are drawn here, plots and the sections of cells in the browser, from the data in the page.
All text from records goes through autoescape or `textContent`; the policy in the page's head admits
the scripts of this folder by their digest and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.leaderboard.views import formats, markdown, paper_tables
from prunebench.leaderboard.views.facts import counts
from prunebench.leaderboard.views.fronts import make_fronts
from prunebench.leaderboard.views.page.data import page_data
from prunebench.leaderboard.views.tables import Table
from prunebench.untyped import Foreign

if TYPE_CHECKING:
    from prunebench.leaderboard.report import Report

HERE = Path(__file__).parent
LIBRARIES = ("d3", "plot", "sortable")
NUMBER = re.compile(r"^(?:[✓✗] )?([+−±-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?: ([kMGT])\b)?")
SUFFIXES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def render(report: Report) -> str:
    """The whole page."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "parts": parts,
        "sort_value": sort_value,
        "percent": formats.percent,
        "bold": _bold,
    }
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    scripts = [*(_library(name) for name in LIBRARIES), _own("page.js"), _own("answers.js")]
    return environment.get_template("index.html.j2").render(
        report=report,
        facts=report.facts,
        counts=counts(report.facts),
        how_to_read=markdown.HOW_TO_READ,
        verdict_counts=paper_tables.counted(report.verdicts),
        verdict_rule=paper_tables.RULE,
        claim_rule=paper_tables.CLAIM_RULE,
        verdicts=paper_tables.verdict_table(report.verdicts),
        claims=paper_tables.claim_table(report.claims),
        unmatched=paper_tables.unmatched_table(report.verdicts),
        data=page_data(report, make_fronts(report.collected, report.summary)),
        style=Markup(_own("style.css")),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
    )


def parts(text: str) -> tuple[str, str, str]:
    """A table's text as what stands out and what is said about it: mean, ± deviation, the rest."""
    match = re.fullmatch(r"(.+?)( ± [^ ]+)?( \([^()]*\))?(?: \(n = \d+\))?(?: ↧)?", text)
    if match is None or not NUMBER.match(text):
        return text, "", ""
    head, spread, error = match.groups(default="")
    return head, spread, text[len(head) + len(spread) :]


def sort_value(text: str) -> str:
    """What a column is sorted by: the number that a text begins with; "" sorts last."""
    if text in ("", formats.MISSING):
        return ""
    if (match := NUMBER.match(text)) is None:
        return text
    number = match[1].replace(",", "").replace("−", "-").replace("±", "")
    return repr(float(number) * SUFFIXES.get(match[2], 1.0))


def _bold(text: str) -> Foreign:
    """Our own sentences in Markdown: **bold** and `code`, everything else escaped."""
    from markupsafe import Markup, escape

    html = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", html))


def _library(name: str) -> str:
    """A library with its licence in front, as that asks."""
    licence = (HERE / "vendor" / f"{name}.LICENSE").read_text(encoding="utf-8")
    files = (HERE / "vendor" / f"{name}.min.js").read_text(encoding="utf-8")
    return f"/*\n{licence}*/\n{files}"


def _own(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _policy(scripts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:"


__all__ = ["Table", "parts", "render", "sort_value"]
