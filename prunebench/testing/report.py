"""What the kit found, in a few lines that say what to change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CHECKS: Mapping[str, str] = {
    "description": "method.yaml says what it must",
    "import": "importing it changes nothing",
    "runs": "it comes to an end by returning",
    "decision": "what it returns is a decision that fits the model",
    "target": "the cell's share of the parameters leaves",
    "exact": "the sliced model computes what the masked one does",
    "saved": "the saved model computes what the one in memory does",
    "weights": "weights change only where method.yaml says changes_weights",
    "numbers": "weights, scores and notes are finite and plain",
    "seeds": "a seed decides everything, and only where method.yaml does not say deterministic",
    "files": "it writes into ctx.workdir alone",
    "network": "it reads what ctx gives it",
    "refusal": "what it cannot prune it refuses in a sentence, by Unsupported",
    "cost": "the tokens that it reports are those that went through the model",
    "budget": "it tunes on the campaign's tokens and no more",
    "limits": "time and memory stay within what method.yaml says under trial",
}
"""Every check and what is true where it passes, in the order in which they are told."""
MOST = 3
"""Problems of one check that are shown."""


@dataclass(frozen=True)
class Report:
    """What was found of one method. problems: check -> what is wrong, and what to change."""

    name: str
    trials: int
    problems: Mapping[str, tuple[str, ...]]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.problems.values())

    @property
    def failed(self) -> tuple[str, ...]:
        """The checks that found something."""
        return tuple(check for check in CHECKS if self.problems[check])

    def text(self) -> str:
        """The report for a terminal: a line, and one for each thing to change."""
        good = len(CHECKS) - len(self.failed)
        lines = [f"{self.name}: {good} of {len(CHECKS)} checks passed, {self.trials} trials"]
        if not self.trials:
            lines = [f"{self.name}: could not be tried"]
        for check in self.failed:
            lines.append(f"  ✗ {check}: not so: {CHECKS[check]}")
            found = self.problems[check]
            lines += [f"      {problem}" for problem in found[:MOST]]
            lines += [f"      and {len(found) - MOST} more"] if len(found) > MOST else []
        return "\n".join(lines)


def report(name: str, trials: int, found: Iterable[tuple[str, str]]) -> Report:
    """A report of (check, problem) pairs; what is said twice is shown once."""
    problems: dict[str, dict[str, None]] = {check: {} for check in CHECKS}
    for check, problem in found:
        problems[check][problem] = None
    return Report(name, trials, {check: tuple(texts) for check, texts in problems.items()})
