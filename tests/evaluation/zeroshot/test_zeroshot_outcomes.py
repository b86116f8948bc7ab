"""Item outcomes: their file, and the statistics of a paired comparison."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot import outcomes, paired
from prunebench.evaluation.zeroshot.outcomes import mcnemar_p


def items(**tasks: str) -> dict[str, Any]:
    """Item outcomes of tasks given as strings of 0 and 1."""
    hashes = {"documents": "d", "prompts": "p", "targets": "t"}
    return {
        "schema_version": 1,
        "tasks": {
            name: {"metric": "acc", "items": len(digits), "acc": digits, "hashes": dict(hashes)}
            for name, digits in tasks.items()
        },
    }


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (1, 0), (3, 3), (2, 9), (40, 71), (900, 800)]
)
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    from scipy.stats import binomtest

    both = first + second
    expected = binomtest(first, both, 0.5).pvalue if both else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9)


def test_a_comparison_by_hand() -> None:
    # 10 items: 1 right only in dense, 4 right only in the other.
    found = paired(items(a="1000011111"), items(a="0111111111"))["tasks"]["a"]
    lost, won = 2 / 12, 5 / 12  # one more each, two items more
    half = 1.959963984540054 * math.sqrt((lost + won - (won - lost) ** 2) / 12)
    assert found["difference"] == pytest.approx(0.3, abs=1e-12)
    assert found["low"] == pytest.approx(0.25 - half, abs=1e-12)
    assert found["high"] == pytest.approx(0.25 + half, abs=1e-12)
    assert found["mcnemar_p"] == pytest.approx(2 * (1 + 5) / 32, abs=1e-12)


def test_equal_outcomes_give_no_difference_but_an_interval_with_a_width() -> None:
    found = paired(items(a="1010" * 50), items(a="1010" * 50))["tasks"]["a"]
    assert (found["difference"], found["mcnemar_p"]) == (0.0, 1.0)
    assert -0.02 < found["low"] < 0 < found["high"] < 0.02


def test_the_mean_weighs_tasks_alike() -> None:
    dense, pruned = items(a="1111", b="1" * 400), items(a="0011", b="1" * 400)
    found = paired(dense, pruned)
    assert found["mean"]["difference"] == pytest.approx(-0.25, abs=1e-12)
    assert found["mean"]["low"] < -0.25 < found["mean"]["high"]
    assert found["mean"]["mcnemar_p"] == pytest.approx(0.5, abs=1e-12)


def test_without_all_tasks_there_is_no_mean() -> None:
    found = paired(items(a="10", b="11"), items(a="10"))
    assert set(found["tasks"]) == {"a"} and found["mean"] is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_an_interval_holds_its_difference_and_stays_in_range(pairs: list) -> None:
    first = "".join("01"[a] for a, _ in pairs)
    second = "".join("01"[b] for _, b in pairs)
    one, other = (
        paired(items(a=x), items(a=y))["mean"] for x, y in ((first, second), (second, first))
    )
    assert -1 <= one["low"] <= one["difference"] <= one["high"] <= 1
    assert other["difference"] == pytest.approx(-one["difference"], abs=1e-12)
    assert other["mcnemar_p"] == one["mcnemar_p"]


@pytest.mark.parametrize("key", ["documents", "prompts", "targets"])
def test_other_documents_or_prompts_are_not_compared(key: str) -> None:
    other = items(a="10")
    other["tasks"]["a"]["hashes"][key] = "else"
    with pytest.raises(Invalid, match=f"a: cannot compare item by item: the {key} differ"):
        paired(items(a="10"), other)


def test_other_metrics_or_numbers_of_items_are_not_compared() -> None:
    with pytest.raises(Invalid, match="numbers of items differ"):
        paired(items(a="10"), items(a="100"))
    other = items(a="10")
    other["tasks"]["a"]["metric"] = "acc_norm"
    with pytest.raises(Invalid, match="metrics differ"):
        paired(items(a="10"), other)


def test_equal_outcomes_are_equal_bytes_and_others_are_not(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name / "items.json.gz" for name in "abc")
    outcomes.write(items(a="10"), first)
    outcomes.write(json.loads(json.dumps(items(a="10"))), again)
    outcomes.write(items(a="11"), other)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    assert paired(first, again)["tasks"]["a"]["difference"] == 0
    assert paired(first, other)["tasks"]["a"]["difference"] == 0.5
    assert [path.name for path in first.parent.iterdir()] == ["items.json.gz"]


@pytest.mark.parametrize(
    "content",
    [b"", b"plain", gzip.compress(b"[1]"), gzip.compress(b"{}"), gzip.compress(b"{}")[:9]],
    # Named, since compressed bytes hold the time: workers that collect a second apart would differ.
    ids=["empty", "not compressed", "a list", "no tasks", "truncated"],
)
def test_a_file_that_holds_no_outcomes_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "items.json.gz"
    path.write_bytes(content)
    with pytest.raises(Invalid, match="item outcomes"):
        outcomes.read(path)
    with pytest.raises(Invalid, match="do not exist"):
        outcomes.read(tmp_path / "absent.json.gz")
