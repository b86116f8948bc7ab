"""Jobs forked from the warm process: the same results, the same ways to end, and none left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import make_tiny
from job_specs import changed, pruning

from prunebench import jobs
from prunebench.jobs import warm
from prunebench.models import folders


@pytest.fixture(scope="module")
def warmed(tmp_path_factory):
    """The variable that names a warm process, for as long as the tests of this file take."""
    folder = tmp_path_factory.mktemp("warm")
    before = os.environ.pop(warm.VARIABLE, None)
    warm.start(folder, 1)
    yield os.environ[warm.VARIABLE]
    for child in psutil.Process().children():
        if "prunebench.jobs.warm" in " ".join(child.cmdline()):
            child.kill()
    os.environ.pop(warm.VARIABLE)
    if before is not None:
        os.environ[warm.VARIABLE] = before


@pytest.fixture(scope="module")
def spec(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("model")
    folders.save(make_tiny(intermediate_size=96), tokenizer, root / "m", uniform=True)
    return pruning(root / "m", root)


def run(spec, out, **options):
    jobs.run("prune", spec.model_dump_json(), [], out, device="cpu", threads=1, **options)
    return json.loads(out.read_text())


def plugin(folder, code):
    place = folder / "plugins" / "toy"
    place.mkdir(parents=True)
    (place / "method.yaml").write_text("name: toy\nsummary: Made by a test.\nkind: method\n")
    (place / "method.py").write_text(code)
    return {"plugins": [str(folder / "plugins")], "method": "toy", "params": {}}


def test_a_forked_job_gives_what_one_of_its_own_gives(warmed, spec, tmp_path, monkeypatch):
    (tmp_path / "warm").mkdir()
    (tmp_path / "cold").mkdir()
    forked = run(spec, tmp_path / "warm" / "prune.json")
    monkeypatch.delenv(warm.VARIABLE)
    alone = run(spec, tmp_path / "cold" / "prune.json")
    assert forked["status"] == "ok", forked["reason"]
    for key in ("model", "sparsity", "decision", "verify", "export", "spec"):
        assert forked[key] == alone[key], key
    assert forked["timing"].keys() == alone["timing"].keys()


def test_each_job_has_a_process_of_its_own(warmed, spec, tmp_path):
    code = "import os\ndef prune(m, c): raise ValueError(f'pid {os.getpid()} of {os.getppid()}')"
    given = changed(spec, **plugin(tmp_path, code))
    reasons = {run(given, tmp_path / f"{i}.json")["reason"] for i in range(2)}
    assert len(reasons) == 2 and len({reason.split(" of ")[1] for reason in reasons}) == 1


def test_a_job_computes_on_as_many_threads_as_it_was_given(warmed, spec, tmp_path, monkeypatch):
    """Forked from a process of one thread, or on its own: its libraries see what the rule has."""
    code = "import os, torch\ndef prune(m, c):\n"
    code += "    omp = os.environ['OMP_NUM_THREADS']\n"
    code += "    raise ValueError(f'{torch.get_num_threads()} of {omp}')\n"
    given = changed(spec, **plugin(tmp_path, code))

    def seen(threads):
        out = tmp_path / f"{threads}.json"
        spec = given.model_dump_json()
        jobs.run("prune", spec, [], out, device="cpu", threads=threads)
        return json.loads(out.read_text())["reason"]

    assert "2 of 2" in seen(2) and "1 of 1" in seen(1)
    monkeypatch.delenv(warm.VARIABLE)
    assert "2 of 2" in seen(2)


def test_a_kill_is_a_reason_and_the_next_job_runs(warmed, spec, tmp_path):
    code = "import os, signal\ndef prune(m, c): os.kill(os.getpid(), signal.SIGKILL)"
    killed = run(changed(spec, **plugin(tmp_path, code)), tmp_path / "killed.json")
    assert killed["status"] == "failed" and "killed by SIGKILL" in killed["reason"]
    assert run(spec, tmp_path / "prune.json")["status"] == "ok"


def test_a_time_limit_ends_the_fork(warmed, spec, tmp_path):
    code = "import os, time\ndef prune(m, c):\n"
    code += "    (c.workdir / 'pid').write_text(str(os.getpid()))\n"
    code += "    time.sleep(600)\n"
    late = run(changed(spec, **plugin(tmp_path, code)), tmp_path / "late.json", timeout_s=4)
    assert late["reason"].startswith("time limit of 4 s exceeded")
    pid = int((tmp_path / "prune.work" / "pid").read_text())
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(pid)


def test_a_job_that_is_stopped_leaves_no_result(warmed, spec, tmp_path):
    code = "import os, signal\ndef prune(m, c): os.kill(os.getpid(), signal.SIGTERM)"
    with pytest.raises(SystemExit) as caught:
        run(changed(spec, **plugin(tmp_path, code)), tmp_path / "p.json")
    assert caught.value.code == 128 + signal.SIGTERM and not (tmp_path / "p.json").exists()


def test_where_no_warm_process_answers_the_job_starts_from_nothing(spec, tmp_path, monkeypatch):
    monkeypatch.setenv(warm.VARIABLE, str(tmp_path / "gone" / "socket"))
    assert run(spec, tmp_path / "prune.json")["status"] == "ok"


def test_it_ends_with_the_process_that_started_it(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom prunebench.jobs import warm\n"
        f"warm.start(Path({str(tmp_path)!r}), 1)\nprint(os.environ[warm.VARIABLE])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    place = done.stdout.strip()
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        alive = [p for p in psutil.process_iter(["cmdline"]) if place in (p.info["cmdline"] or [])]
        if not alive:
            return
        time.sleep(0.2)
    pytest.fail("the warm process outlived its owner")
