"""Source hub, with a stand-in for the hub: what it gives, what it lacks, and when it is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from zeroshot_documents import local_source

from prunebench.errors import Failure
from prunebench.evaluation.zeroshot import evaluate, hub
from prunebench.text.source import Source

HUB = Source(kind="hub")
# Data set and configuration that the stock definitions ask for.
WANTED = {
    ("aps/super_glue", "boolq"): "boolq",
    ("baber/piqa", None): "piqa",
    ("Rowan/hellaswag", None): "hellaswag",
    ("allenai/winogrande", "winogrande_xl"): "winogrande",
    ("allenai/ai2_arc", "ARC-Easy"): "arc_easy",
    ("allenai/ai2_arc", "ARC-Challenge"): "arc_challenge",
    ("allenai/openbookqa", "main"): "openbookqa",
}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[tuple[str, str | None]]:
    """Serve local documents for the hub's data sets; those in the returned set do not exist."""
    import datasets

    local = local_source(tmp_path / "data")
    absent: set[tuple[str, str | None]] = set()
    load = datasets.load_dataset

    def fake(path: str, name: str | None = None, **others: Any) -> Any:
        if path == "json":  # local files
            return load(path, name, **others)
        if (path, name) in absent:
            raise datasets.exceptions.DatasetNotFoundError(f"{path} does not\nexist on the Hub")
        file = str(local.task_file(WANTED[path, name]))
        splits = dict.fromkeys(("train", "validation", "test"), file)
        return load("json", data_files=splits, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", fake)
    monkeypatch.setattr(hub, "_answers", lambda: True)
    return absent


def test_the_hubs_documents_give_what_local_ones_give(
    stand_in: set, tiny: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    local = Source(kind="local", root=tmp_path / "data")
    model = tiny(max_position_embeddings=512)
    found = {
        source.kind: evaluate(
            model, tokenizer, suite="zeroshot/7", source=source, workdir=tmp_path / source.kind
        )
        for source in (HUB, local)
    }
    assert found["hub"]["mean"] is not None
    assert found["hub"] == found["local"]


def test_a_limit_holds_for_the_hub_too(
    stand_in: set, tiny: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny(max_position_embeddings=512)
    result = evaluate(model, tokenizer, suite="zeroshot/7", source=HUB, workdir=tmp_path, limit=2)
    assert result["limit"] == 2
    assert {task["items"] for task in result["tasks"].values()} == {2}


def test_what_the_hub_does_not_have_is_skipped_alone(
    stand_in: set, tiny: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    stand_in.add(("baber/piqa", None))
    model = tiny(max_position_embeddings=512)
    result = evaluate(model, tokenizer, suite="zeroshot/7", source=HUB, workdir=tmp_path, limit=2)
    assert result["tasks"]["piqa"]["status"] == "skipped"
    assert result["tasks"]["piqa"]["reason"] == (
        "the hub does not provide 'baber/piqa': "
        "DatasetNotFoundError: baber/piqa does not exist on the Hub"
    )
    assert result["tasks"]["boolq"]["status"] == "ok" and result["mean"] is None


def test_demo_tasks_are_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    result = evaluate(None, None, suite="zeroshot/demo7", source=HUB, workdir=tmp_path)
    assert result["status"] == "skipped"
    assert "the hub has no such documents" in result["tasks"]["demo_boolq"]["reason"]


def test_without_a_network_one_line_says_what_was_wanted_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    def away(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    # No name is looked up: the session itself fails, as it does without a network.
    monkeypatch.setattr("huggingface_hub.get_session", away)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    was_offline = constants.HF_HUB_OFFLINE
    began = time.monotonic()
    with pytest.raises(Failure) as caught:
        evaluate(None, None, suite="zeroshot/7", source=HUB, workdir=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "boolq: the data set 'aps/super_glue boolq'" in message
    assert "<root>/zeroshot/boolq.jsonl" in message and "source to local" in message
    printed = capfd.readouterr()
    assert "Retrying" not in printed.err + printed.out
    assert constants.HF_HUB_OFFLINE == was_offline
    # Generous: not a measurement, but six attempts with pauses take longer.
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("away"), True),
        (TimeoutError(), True),
        (FileNotFoundError("no such data set"), False),
        (ValueError("unknown configuration"), False),
    ],
)
def test_only_a_missing_network_fails_the_cell(error: Exception, expected: bool) -> None:
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        if expected:
            with pytest.raises(Failure, match="a: the data set 'x y' .* <root>/zeroshot/a.jsonl"):
                hub.reason("a", "x y", ["a.jsonl"], raised)
        else:
            assert hub.reason("a", "x y", ["a.jsonl"], raised).startswith("the hub does not")
