"""Verify a results folder offline, by the rules of `results.rules`; nothing in it is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunebench.results.rules import RULES, Folder, Rule
from prunebench.results.tables import read_campaign
from prunebench.untyped import Json

SHOWN = 5


@dataclass(frozen=True)
class Verdict:
    """What a rule found: files and what is wrong with them; nothing where it holds.

    checked  whether there was anything to look at
    """

    rule: Rule
    findings: tuple[tuple[Path, str], ...]
    checked: bool = True

    @property
    def mark(self) -> str:
        """In a word."""
        if self.findings:
            return self.rule.level
        return "ok" if self.checked else "none"


def check(folder: Path) -> list[Verdict]:
    """Every rule's verdict. Raises Invalid where the folder holds no campaign."""
    found = Folder(read_campaign(folder))
    jobs = bool(found.results)
    return [Verdict(r, tuple(r.find(found)), jobs or not r.of_jobs) for r in RULES]


def wrong(verdicts: list[Verdict]) -> bool:
    """Whether a rule is broken that a number rests on."""
    return any(v.findings and v.rule.level == "error" for v in verdicts)


def as_text(folder: Path, verdicts: list[Verdict]) -> str:
    """One line for each rule, and for the first of the files that break it."""
    lines = []
    for verdict in verdicts:
        rule, findings = verdict.rule, verdict.findings
        more = f" ({len(findings)})" if findings else ""
        more = more if verdict.checked else ": not checked, no results of jobs are there"
        lines.append(f"{verdict.mark:<7} {rule.name:<10} {rule.says}{more}")
        lines += [f"          {path}: {what}" for path, what in findings[:SHOWN]]
        if len(findings) > SHOWN:
            lines.append(f"          and {len(findings) - SHOWN} more: see --json")
    broken = sum(bool(v.findings) for v in verdicts if v.rule.level == "error")
    end = f"{broken} rules broken" if broken else "no rule broken"
    return "\n".join([*lines, f"{folder}: {len(verdicts)} rules, {end}"])


def as_json(folder: Path, verdicts: list[Verdict]) -> Json:
    """The same for programs, with every file."""
    return {
        "folder": str(folder),
        "ok": not wrong(verdicts),
        "rules": [
            {
                "rule": v.rule.name,
                "says": v.rule.says,
                "level": v.rule.level,
                "ok": not v.findings,
                "checked": v.checked,
                "findings": [{"file": str(path), "what": what} for path, what in v.findings],
            }
            for v in verdicts
        ],
    }
