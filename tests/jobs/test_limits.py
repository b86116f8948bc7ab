"""A job's limits end it alone, with the plugin's line; what it prints stays in its log."""

from __future__ import annotations

import json
import os

import psutil
import pytest
from conftest import make_tiny
from job_specs import changed, pruning

from prunebench import jobs
from prunebench.jobs import output, warm
from prunebench.models import folders


@pytest.fixture(scope="module")
def warmed(tmp_path_factory):
    """A warm process for the jobs of this file."""
    before = os.environ.pop(warm.VARIABLE, None)
    warm.start(tmp_path_factory.mktemp("warm"), 1)
    yield
    for child in psutil.Process().children():
        if "prunebench.jobs.warm" in " ".join(child.cmdline()):
            child.kill()
    os.environ.pop(warm.VARIABLE)
    if before is not None:
        os.environ[warm.VARIABLE] = before


@pytest.fixture
def run(warmed, tmp_path, tokenizer, capfd):
    """Function that runs a plugin of this code as a job: its result and what was printed."""

    def run_it(code, **limits):
        place = tmp_path / "plugins" / "toy"
        place.mkdir(parents=True)
        text = "name: toy\nsummary: Made by a test.\nkind: method\n"
        (place / "method.yaml").write_text(text)
        (place / "method.py").write_text(code)
        folders.save(make_tiny(), tokenizer, tmp_path / "m", uniform=True)
        given = {"plugins": [str(tmp_path / "plugins")], "method": "toy", "params": {}}
        spec = changed(pruning(tmp_path / "m"), **given).model_dump_json()
        out = tmp_path / "prune.json"
        jobs.run("prune", spec, [], out, device="cpu", threads=1, **limits)
        assert not list(tmp_path.glob(".*")), "nothing is left over"
        return json.loads(out.read_text()), capfd.readouterr()

    return run_it


def test_a_hang_ends_with_the_line_where_it_hung(run):
    result, _ = run("import time\n\ndef prune(m, c):\n    time.sleep(600)\n", timeout_s=20)
    assert (result["status"], result["reason"]) == (
        "failed",
        "time limit of 20 s exceeded, at toy/method.py:4",
    )


def test_an_allocation_beyond_the_memory_fails_at_its_line(run):
    code = "import torch\ndef prune(m, c):\n    return torch.ones(2_000_000_000)\n"
    result, _ = run(code, memory_mb=1500)
    assert result["status"] == "failed"
    assert result["reason"].startswith("out of memory") and "(toy/method.py:3)" in result["reason"]


def test_memory_of_what_a_job_starts_counts_too(run):
    hungry = "x = bytearray(900_000_000); import time; time.sleep(60)"
    code = (
        "import subprocess, sys\n\ndef prune(m, c):\n"
        f"    subprocess.run([sys.executable, '-c', {hungry!r}])\n"
    )
    result, _ = run(code, memory_mb=900, timeout_s=50)
    assert result["reason"].startswith("memory limit of 900 MB exceeded (")
    assert result["reason"].endswith(", at toy/method.py:4")
    assert not [p for p in psutil.Process().children(recursive=True) if hungry in p.cmdline()]


def test_a_crash_of_compiled_code_names_the_line(run):
    result, _ = run("import ctypes\ndef prune(m, c):\n    ctypes.string_at(0)\n")
    assert result["reason"] == "the job was killed by SIGSEGV, at toy/method.py:3"


def test_what_a_plugin_prints_stays_out_of_the_terminal(run):
    """Standard output as well, and written past Python's own: all of it goes where the log is."""
    code = (
        "import os, sys\ndef prune(m, c):\n    print('first words')\n"
        "    for i in range(30_000): print('x' * 999)\n"
        "    os.write(1, b'last words')\n    raise ValueError('lost')\n"
    )
    result, printed = run(code)
    assert result["reason"] == "ValueError: lost (toy/method.py:6)"
    assert printed.out == "" and "first words" in printed.err and "last words" in printed.err
    assert len(printed.err) < output.BEGINNING + output.END + 1000
