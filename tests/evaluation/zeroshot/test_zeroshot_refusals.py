"""What an evaluation leaves out with a reason, and the input that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from zeroshot_documents import local_source, run

from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot import ITEMS, outcomes
from prunebench.text.source import Source


@pytest.fixture
def local(tmp_path: Path) -> Source:
    return local_source(tmp_path / "data")


@pytest.fixture
def model(tiny: Callable[..., Any]) -> Any:
    return tiny(max_position_embeddings=512)


def test_a_task_without_a_file_is_skipped_alone_and_then_there_is_no_mean(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    absent = local.root / "zeroshot" / "piqa.jsonl"
    absent.unlink()
    result = run(model, tokenizer, local, tmp_path)
    piqa = result["tasks"]["piqa"]
    assert (piqa["status"], piqa["reason"]) == ("skipped", f"no file {absent}")
    assert {piqa[key] for key in ("value", "acc", "items", "chance", "hash")} == {None}
    assert {task["status"] for name, task in result["tasks"].items() if name != "piqa"} == {"ok"}
    assert result["status"] == "ok" and str(absent) in result["reason"]
    assert {result[key] for key in ("mean", "mean_stderr", "mean_above_chance")} == {None}


def test_a_suite_without_any_task_is_skipped_and_no_model_is_needed(tmp_path: Path) -> None:
    source = Source(kind="local", root=tmp_path)
    result = run(None, None, source, tmp_path)
    assert result["status"] == "skipped" and "7 of 7 tasks skipped" in result["reason"]


def test_a_wrong_file_is_found_before_the_model_is_touched(local: Source, tmp_path: Path) -> None:
    path = local.root / "zeroshot" / "openbookqa.jsonl"
    path.write_text(path.read_text() + '{"question_stem": "cut of')
    with pytest.raises(Invalid, match=f"{path.name}: line 7: not a complete JSON object"):
        run(None, None, local, tmp_path)


def test_what_only_the_harness_cannot_read_is_named_too(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    path = local.root / "zeroshot" / "piqa.jsonl"
    # JSON for us, the last of two equal keys counting, but not for the harness's data library.
    path.write_text(path.read_text().replace("{", '{"goal": "once", ', 1))
    with pytest.raises(Invalid, match="piqa.jsonl: lm-eval cannot read it: .*twice") as caught:
        run(model, tokenizer, local, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "10"])
def test_a_wrong_limit_is_refused(limit: Any, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="limit: expected a whole number from 1"):
        run(None, None, None, tmp_path, limit=limit)


@pytest.mark.parametrize("batch_size", [0, "many", None, True])
def test_a_wrong_batch_size_is_refused(batch_size: Any, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="batch size: expected a whole number from 1, or 'auto'"):
        run(None, None, None, tmp_path, batch_size=batch_size)


def test_outcomes_of_another_limit_or_harness_are_not_compared(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    for limit in (2, 3):
        run(model, tokenizer, local, tmp_path / str(limit), limit=limit)
    two, three = (outcomes.read(tmp_path / limit / ITEMS) for limit in ("2", "3"))
    with pytest.raises(Invalid, match=r"numbers of items differ \(2, 3\)"):
        outcomes.paired(two, three)
    with pytest.raises(Invalid, match="scored by .*'version': '0'"):
        outcomes.paired({**two, "harness": {"name": "lm-eval", "version": "0"}}, two)
    with pytest.raises(Invalid, match="do not exist"):
        outcomes.paired(tmp_path / "absent.json.gz", two)
