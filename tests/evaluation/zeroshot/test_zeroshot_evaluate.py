"""Evaluation of tiny random models: the record's part, item outcomes, limits."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from zeroshot_documents import ITEMS as DOCUMENTS
from zeroshot_documents import local_source, run, write_task

from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.evaluation.zeroshot import ITEMS, load_suite, outcomes, paired
from prunebench.text.source import Source

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def local(tmp_path: Path) -> Source:
    return local_source(tmp_path / "data")


@pytest.fixture
def model(tiny: Callable[..., Any]) -> Any:
    return tiny(max_position_embeddings=512)


def test_the_part_holds_what_must_travel_with_a_number(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    result = run(model, tokenizer, local, tmp_path)
    assert (result["status"], result["reason"], result["limit"]) == ("ok", None, None)
    assert result["harness"]["name"] == "lm-eval" and result["harness"]["version"]
    tasks = result["tasks"]
    assert list(tasks) == [task.name for task in load_suite("zeroshot/7").tasks]
    for task in tasks.values():
        assert (task["status"], task["items"]) == ("ok", DOCUMENTS)
        assert task["value"] == task[task["metric"]]
        assert task["stderr"] > 0 or task["value"] in (0, 1)
        assert task["version"] is not None and len(task["hash"]) == 64
    both = [name for name, task in tasks.items() if task["acc_norm"] is not None]
    assert both == ["piqa", "hellaswag", "arc_easy", "arc_challenge", "openbookqa"]
    assert all(task["acc"] is not None for task in tasks.values())
    values = [task["value"] for task in tasks.values()]
    assert result["mean"] == pytest.approx(sum(values) / 7, abs=1e-12)
    errors = [task["stderr"] for task in tasks.values()]
    assert result["mean_stderr"] == pytest.approx(sum(e * e for e in errors) ** 0.5 / 7, abs=1e-12)


def test_chance_comes_from_the_answers_that_each_document_offers(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    result = run(model, tokenizer, local, tmp_path)
    chance = {name: task["chance"] for name, task in result["tasks"].items()}
    assert [chance[name] for name in ("boolq", "piqa", "winogrande")] == [0.5, 0.5, 0.5]
    assert [chance[name] for name in ("hellaswag", "arc_easy", "openbookqa")] == [0.25] * 3
    assert chance["arc_challenge"] == pytest.approx((1 / 3 + 1 / 4) / 2, abs=1e-12)
    assert result["mean_chance"] == pytest.approx(sum(chance.values()) / 7, abs=1e-12)
    assert result["mean_above_chance"] == result["mean"] - result["mean_chance"]


def test_a_limit_takes_the_first_items_and_is_recorded(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    whole = run(model, tokenizer, local, tmp_path / "whole")
    limited = run(model, tokenizer, local, tmp_path / "limited", limit=4)
    assert (whole["limit"], limited["limit"]) == (None, 4)
    assert {task["items"] for task in limited["tasks"].values()} == {4}
    first = outcomes.read(tmp_path / "limited" / ITEMS)
    everything = outcomes.read(tmp_path / "whole" / ITEMS)
    assert (first["limit"], everything["limit"]) == (4, None)
    for name, task in first["tasks"].items():
        assert task["documents"] == everything["tasks"][name]["documents"][:4]
        assert task["acc"] == everything["tasks"][name]["acc"][:4]
    with pytest.raises(Invalid, match="numbers of items differ"):
        paired(tmp_path / "whole" / ITEMS, tmp_path / "limited" / ITEMS)


def test_item_outcomes_add_up_to_the_accuracies(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    result = run(model, tokenizer, local, tmp_path)
    items = outcomes.read(tmp_path / result["items_file"])
    for name, task in items["tasks"].items():
        row = result["tasks"][name]
        assert len(task["documents"]) == len(set(task["documents"])) == DOCUMENTS
        for metric in ("acc", "acc_norm"):
            if task[metric] is None:
                assert row[metric] is None
            else:
                assert task[metric].count("1") / DOCUMENTS == pytest.approx(row[metric], abs=1e-12)


def test_a_saved_and_reloaded_model_gives_identical_bytes_and_another_does_not(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path, tiny: Callable[..., Any]
) -> None:
    from prunebench.models import folders

    folders.save(model, tokenizer, tmp_path / "model", uniform=True)
    again, its_tokenizer = folders.load(tmp_path / "model")
    other = tiny(seed=3, max_position_embeddings=512)
    dense = tmp_path / "dense" / ITEMS
    run(model, tokenizer, local, dense.parent)
    results = {
        "copy": run(again, its_tokenizer, local, tmp_path / "copy"),
        "other": run(other, tokenizer, local, tmp_path / "other"),
    }
    assert dense.read_bytes() == (tmp_path / "copy" / ITEMS).read_bytes()
    assert dense.read_bytes() != (tmp_path / "other" / ITEMS).read_bytes()
    versus = {name: outcomes.paired(dense, tmp_path / name / ITEMS) for name in results}
    same = versus["copy"]["mean"]
    assert (same["difference"], same["mcnemar_p"]) == (0.0, 1.0)
    assert same["low"] < 0 < same["high"]
    dense_items = outcomes.read(dense)["tasks"]
    for run_name, result in results.items():
        for name, task in result["tasks"].items():
            first = dense_items[name][task["metric"]].count("1") / DOCUMENTS
            difference = versus[run_name]["tasks"][name]["difference"]
            assert difference == pytest.approx(task["value"] - first, abs=1e-12)


def test_layers_of_different_sizes_are_evaluated_as_they_are(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    import torch

    sliced = copy.deepcopy(model)
    mlp = sliced.model.layers[1].mlp
    with torch.no_grad():
        for name, dim in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
            linear = getattr(mlp, name)
            linear.weight = torch.nn.Parameter(linear.weight.narrow(dim, 0, 20).clone())
    result = run(sliced, tokenizer, local, tmp_path)
    assert result["status"] == "ok" and 0 <= result["mean"] <= 1


def test_pat14_runs_wholly_and_pools_the_items_of_a_group(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    import lm_eval

    subjects = sorted(
        path.stem
        for path in (Path(lm_eval.__file__).parent / "tasks/mmlu/default").glob("mmlu_*.yaml")
    )
    for number, subject in enumerate(subjects):
        write_task(local.root, "mmlu", file=subject, items=1 + number % 2)
    for task in load_suite("zeroshot/pat14").tasks[7:]:
        if task.group is None:
            write_task(local.root, task.name)
    result = run(model, tokenizer, local, tmp_path, suite="zeroshot/pat14")
    assert result["reason"] is None and result["mean"] is not None
    mmlu = result["tasks"]["mmlu"]
    expected = sum(1 + number % 2 for number in range(len(subjects)))
    assert (len(subjects), mmlu["items"], mmlu["chance"]) == (57, expected, 0.25)
    pooled = outcomes.read(tmp_path / ITEMS)["tasks"]["mmlu"]["acc"]
    assert mmlu["value"] == pytest.approx(pooled.count("1") / expected, abs=1e-12)
    (local.root / "zeroshot" / "mmlu_virology.jsonl").unlink()
    again = run(model, tokenizer, local, tmp_path, suite="zeroshot/pat14", limit=1)
    assert again["tasks"]["mmlu"]["status"] == "skipped"
    assert again["tasks"]["mmlu"]["reason"].endswith("mmlu_virology.jsonl")
    assert again["tasks"]["copa"]["status"] == "ok"


def test_a_batch_size_that_the_harness_finds_gives_the_same_outcomes(
    model: Any,
    tokenizer: Any,
    local: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from prunebench.evaluation.zeroshot import harness

    fixed = run(model, tokenizer, local, tmp_path, batch_size="auto", scoring="plain")
    # On a CPU "auto" is a fixed size; this sends it on to lm-eval, as on a GPU.
    monkeypatch.setattr(harness, "CPU_BATCH_SIZE", "auto")
    found = run(model, tokenizer, local, tmp_path, batch_size="auto", scoring="plain")
    assert (fixed.pop("batch_size"), found.pop("batch_size")) == ([16], [64])
    assert found == fixed
    printed = capsys.readouterr()
    assert printed.out == "" and "Determined largest batch size: 64" in printed.err


def lengthen(path: Path, count: int) -> None:
    """Give the first documents a long passage."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:count]:
        row["passage"] = "far too long " * 40
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_items_longer_than_the_context_are_counted_and_an_answer_that_long_is_a_failure(
    tiny: Callable[..., Any],
    tokenizer: Any,
    local: Source,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="prunebench"):
        lengthen(local.root / "zeroshot" / "boolq.jsonl", 3)
        result = run(tiny(max_position_embeddings=200), tokenizer, local, tmp_path)
        items = outcomes.read(tmp_path / ITEMS)["tasks"]
    assert items["boolq"]["cut"] == result["tasks"]["boolq"]["truncated"] == 3
    assert items["winogrande"]["cut"] == result["tasks"]["winogrande"]["truncated"] == 0
    assert f"boolq: 3 of {DOCUMENTS} items exceed" in caplog.text and result["mean"] is not None
    with pytest.raises(Failure, match="does not fit the model's context of 8 tokens"):
        run(tiny(max_position_embeddings=8), tokenizer, local, tmp_path)


def test_a_task_of_which_no_item_fits_is_left_out_with_its_reason(
    tiny: Callable[..., Any], tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    result = run(tiny(max_position_embeddings=40), tokenizer, local, tmp_path)
    boolq = result["tasks"]["boolq"]
    assert boolq["status"] == "skipped" and boolq["value"] is None
    assert boolq["reason"].startswith(f"all {DOCUMENTS} items are longer than the model's 40 posit")
    assert result["mean"] is None and "boolq" in result["reason"]
    assert "boolq" not in outcomes.read(tmp_path / ITEMS)["tasks"]


def test_a_tokenizer_without_bos_and_eos_is_a_reason_not_an_error(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = bare.eos_token = None
    with pytest.raises(Unsupported, match="needs a tokenizer with a BOS or EOS token"):
        run(model, bare, local, tmp_path)


def test_whether_prompts_begin_with_bos_is_recorded(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    assert run(model, tokenizer, local, tmp_path, limit=1)["bos"] is True
    without = copy.deepcopy(tokenizer)
    without.bos_token = "</s>"  # which this tokenizer does not put first
    assert run(model, without, local, tmp_path, limit=1)["bos"] is False


def test_nothing_of_the_callers_is_left_changed(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets
    import lm_eval.utils

    unpadded = copy.deepcopy(tokenizer)
    unpadded.pad_token = None
    trained = copy.deepcopy(model).train()
    level = logging.getLogger("lm_eval").level
    bars = datasets.is_progress_bar_enabled()
    run(trained, unpadded, local, tmp_path, limit=2)
    assert unpadded.pad_token is None and trained.training
    assert logging.getLogger("lm_eval").level == level
    assert datasets.is_progress_bar_enabled() == bars
    assert "from_string" not in vars(lm_eval.utils.env)
    assert [path.name for path in tmp_path.iterdir()] in ([ITEMS, "data"], ["data", ITEMS])
    printed = capsys.readouterr()
    assert printed.out == "" and "log-likelihoods" in printed.err


def test_the_part_has_the_form_of_records(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    from prunebench.record.measured import SuitePart

    (local.root / "zeroshot" / "arc_easy.jsonl").unlink()
    result = run(model, tokenizer, local, tmp_path)
    part = SuitePart.model_validate(result)
    assert part.tasks["boolq"].status == "ok" and part.tasks["arc_easy"].status == "skipped"
    with pytest.raises(ValueError, match="mean"):
        SuitePart.model_validate({**result, "mean": "high"})


def test_importing_the_package_imports_neither_torch_nor_the_harness() -> None:
    code = (
        "import sys, prunebench.evaluation.zeroshot as z; z.load_suite('zeroshot/7');"
        "print([m for m in ('torch', 'transformers', 'datasets', 'lm_eval') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
