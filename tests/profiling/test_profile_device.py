"""The line that names a device, and what the driver says, played by a stand-in."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from prunebench.profiling import describe, series
from prunebench.profiling.device import energy_j, is_shared


class Driver:
    """Answers like the NVML bindings; `processes` hold memory on the only GPU."""

    class NVMLError(Exception):
        pass

    def __init__(self, processes: list[int]) -> None:
        self.processes, self.millijoules = processes, 5_000

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == "GPU-1234"
        return uuid

    def nvmlSystemGetDriverVersion(self) -> str:
        return "600.10"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.processes]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if self.millijoules is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that exists only as far as it is asked; returns a function that sets its processes."""
    empty = torch.empty
    properties = SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Stand-in GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch, "empty", lambda *size, device=None: empty(*size))

    def install(processes: list[int] | None) -> Driver | None:
        driver = None if processes is None else Driver(processes)
        monkeypatch.setitem(sys.modules, "pynvml", driver)  # None: cannot be imported
        return driver

    return install


def test_cpu_line_has_name_and_threads():
    line = describe("cpu")
    assert line.startswith("cpu: ")
    assert line.endswith(f"{torch.get_num_threads()} threads")


@pytest.mark.parametrize("processes, shared", [([11], False), ([11, 12], True), ([], None)])
def test_another_process_on_the_gpu_is_seen(gpu, processes, shared):
    gpu(processes)
    assert is_shared("cuda") is shared
    assert describe("cuda") == f"cuda: Stand-in GPU, driver 600.10, CUDA {torch.version.cuda}"


def test_sharing_of_a_cpu_is_not_known():
    assert is_shared("cpu") is None


@pytest.mark.parametrize(
    "before, after, shared",
    [(False, False, False), (False, True, True), (True, None, True), (False, None, None)],
)
def test_profile_is_marked_if_the_device_was_shared_at_either_end(
    monkeypatch, tiny, before, after, shared
):
    answers = iter([before, after])
    monkeypatch.setattr(series, "is_shared", lambda device: next(answers))
    profile = series.measure({"dense": tiny()}, [], device="cpu")["dense"]
    assert profile["shared_device"] is shared
    assert profile["device"].endswith(", shared device") is bool(shared)
    assert ("shared_device" in profile["missing"]) is (shared is None)


def test_gpu_line_without_bindings_and_tools(gpu, monkeypatch):
    gpu(None)
    monkeypatch.setenv("PATH", "")
    assert "driver unknown" in describe("cuda")
    assert is_shared("cuda") is None


def test_nvidia_smi_answers_where_the_bindings_are_missing(gpu, monkeypatch, tmp_path):
    gpu(None)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\ncase "$*" in *compute-apps*) echo 7; echo 8;; *) echo 600.11;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert "driver 600.11" in describe("cuda")
    assert is_shared("cuda") is True


def test_energy_is_joules_or_a_reason(gpu):
    driver = gpu([11])
    assert energy_j("cuda") == (5.0, None)
    driver.millijoules = None
    assert energy_j("cuda") == (None, "the driver gives no energy: Not Supported")
    gpu(None)
    value, reason = energy_j("cuda")
    assert value is None and "nvidia-ml-py" in reason
    value, reason = energy_j("cpu")
    assert value is None and reason
