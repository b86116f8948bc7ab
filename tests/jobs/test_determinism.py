"""Deterministic kernels: asked for strictly on a GPU, and an operation without one is named."""

from __future__ import annotations

import pytest
import torch

from prunebench.campaign.parts import Part
from prunebench.errors import Failure
from prunebench.jobs import determinism, evaluate
from prunebench.jobs.work import JobIO, attempt
from prunebench.recovery.training import _deterministic
from prunebench.results.assemble import _notes

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_before():
    """Leaves torch as it was."""
    memory = torch.utils.deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = memory.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(enabled, warn_only=warned)
    memory.fill_uninitialized_memory = fills


def strict() -> bool:
    return (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    )


def unordered() -> torch.Tensor:
    """An operation for which torch has no deterministic kernel, on a CPU neither."""
    return torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))


def test_strict_on_a_gpu_and_with_warnings_on_a_cpu():
    determinism.ask(3, "cuda")
    assert strict()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    first = torch.rand(2)
    determinism.ask(3, "cpu")
    assert torch.are_deterministic_algorithms_enabled()
    assert not strict()
    assert torch.equal(torch.rand(2), first)


def test_a_job_without_a_kernel_runs_again_and_names_it(tmp_path):
    runs = []

    def work(spec, io):
        determinism.ask(0, "cuda")
        runs.append(strict())
        return {"filled": unordered().numel()}

    result = attempt(work, Part(), JobIO(tmp_path / "prune.json", "cuda"))
    assert runs == [True, False]
    assert (result["status"], result["filled"]) == ("ok", 4)
    assert result[determinism.NOTE] == "put_"
    determinism.ask(0, "cuda")
    assert strict()  # the next job of the process begins anew


def test_a_job_with_all_kernels_runs_once_and_says_nothing(tmp_path):
    runs = []

    def work(spec, io):
        determinism.ask(0, "cuda")
        runs.append(torch.ones(3).sum().item())
        return {}

    result = attempt(work, Part(), JobIO(tmp_path / "prune.json", "cuda"))
    assert runs == [3.0]
    assert determinism.NOTE not in result


def test_other_errors_are_not_tried_again(tmp_path):
    runs = []

    def work(spec, io):
        runs.append(1)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    result = attempt(work, Part(), JobIO(tmp_path / "prune.json", "cuda"))
    assert runs == [1]
    assert result["status"] == "failed"
    assert "illegal memory access" in result["reason"]


def test_a_part_of_an_evaluation_does_not_swallow_it():
    determinism.ask(0, "cuda")
    with pytest.raises(RuntimeError, match="put_"):
        evaluate.part(lambda: {"sum": unordered().sum()})
    lost = evaluate.part(lambda: (_ for _ in ()).throw(Failure("no text")))
    assert lost == {"status": "failed", "reason": "no text"}


def test_tuning_is_strict_unless_its_job_has_met_such_an_operation():
    torch.use_deterministic_algorithms(False)
    with _deterministic(CUDA):
        assert strict()
    assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    with _deterministic(CUDA):
        assert torch.are_deterministic_algorithms_enabled()
        assert not strict()


def test_the_record_says_so_once():
    lost = {determinism.NOTE: "put_"}
    notes = _notes({**lost, "sparsity": {"note": None}}, lost, {"notes": ["no BOS"]})
    assert notes == ["no BOS", "a rerun may differ: put_ has no deterministic kernel"]
