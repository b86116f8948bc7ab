"""Devices: one GPU for one job at a time, threads as given."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from prunebench.devices import NARROWING, cpu_name, reserved, thread_limits, visible_gpus
from prunebench.errors import Unsupported


def device_of(given):
    return given.environment["CUDA_VISIBLE_DEVICES"]


def test_the_cpu_hides_all_gpus():
    with reserved("cpu") as given:
        assert given.environment == {"CUDA_VISIBLE_DEVICES": ""} and not given.locks


def test_two_jobs_get_two_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with reserved("cuda", folder=tmp_path) as first, reserved("cuda", folder=tmp_path) as second:
        assert {device_of(first), device_of(second)} == {"3", "5"}


def _hold(folder, ready, leave):
    with reserved("cuda", folder=folder):
        ready.set()
        leave.wait(30)


def test_a_third_job_waits_until_one_is_free(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, leave))
    holder.start()
    assert ready.wait(30)
    monkeypatch.setattr("time.sleep", lambda _: leave.set())  # it was found taken: let it go
    with reserved("cuda", folder=tmp_path) as given:
        assert device_of(given) == "7"
        assert leave.is_set()
    holder.join()


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    with pytest.raises(Unsupported, match="no GPU is visible"), reserved("cuda"):
        pass


class Waited(Exception):
    """A job found every device taken."""


def refuse_to_wait(monkeypatch):
    def wait(_):
        raise Waited

    monkeypatch.setattr("time.sleep", wait)


def _hold_and_die(folder, ready):
    with reserved("cuda", folder=folder):
        ready.set()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_leaves_its_gpu_free(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold_and_die, args=(tmp_path, ready))
    holder.start()
    holder.join()
    assert ready.is_set() and holder.exitcode == -signal.SIGKILL
    refuse_to_wait(monkeypatch)
    with reserved("cuda", folder=tmp_path) as given:
        assert device_of(given) == "7"


def test_a_job_that_outlives_its_caller_keeps_its_gpu(monkeypatch, tmp_path):
    """The caller is gone (killed, say), what it started still computes: nobody else may."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with reserved("cuda", folder=tmp_path) as given:
        job = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=given.locks)
    refuse_to_wait(monkeypatch)
    with pytest.raises(Waited), reserved("cuda", folder=tmp_path):
        pass
    job.communicate()  # it ends
    with reserved("cuda", folder=tmp_path) as given:
        assert device_of(given) == "7"


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ("3, 5", ["3", "5"]),
        ("GPU-8932f937-d72c,MIG-1a2b", ["GPU-8932f937-d72c", "MIG-1a2b"]),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", ["0"]),  # CUDA stops there
    ],
)
def test_what_the_variable_of_cuda_names(monkeypatch, given, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == gpus


def stand_in(folder, monkeypatch, text):
    """An nvidia-smi that prints `text`, first on the path."""
    folder.mkdir()
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{text}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_jobs_that_each_see_their_own_device_0_do_not_wait_for_each_other(monkeypatch, tmp_path):
    """As under Slurm with ConstrainDevices: one number, two cards."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited for another card"))
    stand_in(tmp_path / "a", monkeypatch, "0, GPU-aaaa\\n")
    with reserved("cuda", folder=tmp_path) as first:
        stand_in(tmp_path / "b", monkeypatch, "0, GPU-bbbb\\n")
        with reserved("cuda", folder=tmp_path) as second:
            assert device_of(first) == device_of(second) == "0"
    assert {path.name for path in tmp_path.glob("*.lock")} == {
        "gpu-GPU-aaaa.lock",
        "gpu-GPU-bbbb.lock",
    }


def test_one_card_under_two_names_is_one_card(monkeypatch, tmp_path):
    stand_in(tmp_path / "a", monkeypatch, "0, GPU-aaaa\\n1, GPU-bbbb\\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]

    refuse_to_wait(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with reserved("cuda", folder=tmp_path):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb")
        with pytest.raises(Waited), reserved("cuda", folder=tmp_path):
            pass


def test_a_machine_without_nvidia_smi_asks_torch(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 2\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert visible_gpus() == ["0", "1"]


def test_threads_are_limited_everywhere():
    limits = thread_limits(2)
    assert limits["OMP_NUM_THREADS"] == limits["MKL_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("model name\t: Cloud CPU\nflags\t\t: sse2 avx avx2 avx512f\n", "Cloud CPU (avx512f)"),
        ("model name\t: Cloud CPU\nflags\t\t: sse2 avx avx2\n", "Cloud CPU (avx2)"),
        ("model name\t: Old CPU\nflags\t\t: sse2\n", "Old CPU"),
    ],
)
def test_processors_of_one_name_are_told_apart(tmp_path, monkeypatch, lines, name):
    for variable in NARROWING:
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{lines}\nprocessor\t: 1\n{lines}")
    assert cpu_name(tmp_path / "cpuinfo") == name


def test_instructions_that_the_environment_forbids_are_part_of_the_name(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("model name\t: Cloud CPU\nflags\t\t: avx avx2\n")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert cpu_name(tmp_path / "cpuinfo") == "Cloud CPU (avx2, ATEN_CPU_CAPABILITY=default)"


def test_a_system_that_tells_no_processor_still_has_a_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("Features\t: asimd\n")
    assert cpu_name(tmp_path / "cpuinfo") and cpu_name(tmp_path / "absent")
