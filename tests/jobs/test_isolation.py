"""Whatever a plugin does ends as its own cell's reason, which names the plugin's file and line."""

from __future__ import annotations

import os
import random
import threading

import numpy
import pytest
import torch
from conftest import make_tiny
from job_specs import attempt, changed, pruning

from prunebench.jobs import output, prune
from prunebench.models import folders

HEAD = "from prunebench import Decision, Failure, Structure, Unsupported\n"
SCORES = (
    "    n = [n for n, s in c.structures.items() if s.kind == 'neurons']\n"
    "    return c.select({k: torch.arange(c.structures[k].units).float() for k in n})\n"
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory, tokenizer):
    """A pruning job on a tiny model, with calibration text."""
    root = tmp_path_factory.mktemp("world")
    (root / "newswire").mkdir()
    text = "\n".join(f"item {i}: something happened somewhere" for i in range(60))
    (root / "newswire" / "train.txt").write_text(text)
    folders.save(make_tiny(intermediate_size=96), tokenizer, root / "m", uniform=True)
    return pruning(root / "m", root, calibration={"corpus": "newswire", "samples": 2, "length": 16})


def plugin(spec, folder, body, more=""):
    """The job with a plugin `toy` whose prune(m, c) is `body`, from line 3 of its file on."""
    place = folder / "plugins" / "toy"
    place.mkdir(parents=True)
    description = f"name: toy\nsummary: Made by a test.\nkind: method\n{more}"
    (place / "method.yaml").write_text(description)
    (place / "method.py").write_text(f"import torch\n{HEAD}{body}")
    given = {"plugins": [str(folder / "plugins")], "method": "toy", "params": {}}
    return changed(spec, **given)


def reason_of(spec, tmp_path, body, more=""):
    result = attempt(prune.prune, plugin(spec, tmp_path, body, more), tmp_path / "c" / "prune.json")
    assert result["status"] == "failed", result["status"]
    assert "\n" not in result["reason"]
    return result["reason"]


DEFINED = "def prune(m, c):\n"
BAD = {
    "crashes at import": (
        "import no_such_module\n", "No module named 'no_such_module' (toy/method.py:3)",
    ),
    "is not Python": ("def prune(:\n", "SyntaxError: invalid syntax"),
    "raises": (DEFINED + "    raise KeyError('lost')", "KeyError: 'lost' (toy/method.py:4)"),
    "raises its own kind": (
        "class Odd(BaseException): pass\n" + DEFINED + "    raise Odd('so')",
        "Odd: so (toy/method.py:5)",
    ),
    "returns nothing": (
        DEFINED + "    pass", "returned NoneType, not a Decision (toy/method.py:3)",
    ),
    "returns letters": (
        DEFINED + "    return Decision({'layers.0.heads': 'ab'})",
        "expected numbers of kept units, got 'ab' (toy/method.py:3)",
    ),
    "keeps a doubled unit": (
        DEFINED + "    return Decision({'layers.0.neurons': (1, 1)})",
        "ascending distinct units in 0..95, got 1, 1 (returned by prune(), toy/method.py:3)",
    ),
    "keeps unsorted units": (
        DEFINED + "    return Decision({'layers.0.neurons': (2, 1)})",
        "ascending distinct units in 0..95, got 2, 1",
    ),
    "keeps what is not there": (
        DEFINED + "    return Decision({'layers.0.neurons': (1, 96)})",
        "ascending distinct units in 0..95, got 1, 96",
    ),
    "keeps nothing": (
        DEFINED + "    return Decision({'layers.0.neurons': ()})",
        "the last unit of a structure must stay",
    ),
    "notes a tensor": (
        DEFINED + "    c.note('mask', torch.ones(2))",
        "ctx.note: mask: Tensor has no form in JSON (toy/method.py:4)",
    ),
    "scores with NaN": (
        DEFINED + "    return c.select({'layers.0.neurons': torch.full((96,), torch.nan)})",
        "scores must be finite, got NaN or infinity (toy/method.py:4)",
    ),
    "calls sys.exit": (
        "import sys\n" + DEFINED + "    sys.exit(3)",
        "called sys.exit(3) (toy/method.py:5); raise Failure or Unsupported",
    ),
    "calls os._exit": (
        "import os\n" + DEFINED + "    os._exit(3)",
        "called os._exit(3) (toy/method.py:5); raise Failure or Unsupported",
    ),
    "swallows what it is told": (
        "import os\n" + DEFINED + "    try: os._exit(3)\n    except Exception: pass\n" + SCORES,
        "called os._exit(3) (toy/method.py:5)",
    ),
    "changes directory": (
        "import os\n" + DEFINED + "    os.chdir('/')\n" + SCORES,
        "changed the working folder to / (toy/method.py:5); give whole paths",
    ),
    "writes elsewhere": (
        DEFINED + "    open('left-behind.txt', 'w')\n" + SCORES,
        "changed left-behind.txt (toy/method.py:4); a method writes into ctx.workdir only",
    ),
    "makes a folder elsewhere": (
        "import os\n" + DEFINED + "    os.makedirs('left/behind')\n" + SCORES,
        "changed left (toy/method.py:5)",
    ),
    "asks the network": (
        "import socket\n" + DEFINED + "    socket.create_connection(('192.0.2.1', 80), 1)\n",
        "asked the network for 192.0.2.1 (toy/method.py:5); what a method reads comes from ctx",
    ),
    "draws from numpy, unseeded": (
        "import numpy\n" + DEFINED + "    numpy.random.default_rng().random()\n" + SCORES,
        "drew from an unseeded generator, numpy.random.default_rng (toy/method.py:5); seed it",
    ),
    "draws from random, unseeded": (
        "import random\n" + DEFINED + "    random.Random().random()\n" + SCORES,
        "drew from an unseeded generator, random.Random (toy/method.py:5)",
    ),
    "draws from the system": (
        "import os\n" + DEFINED + "    os.urandom(4)\n" + SCORES,
        "drew from an unseeded generator, os.urandom (toy/method.py:5)",
    ),
    "seeds torch with anything": (
        DEFINED + "    torch.seed()\n" + SCORES,
        "drew from an unseeded generator, torch.seed (toy/method.py:4)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plugin_is_a_reason_with_its_file_and_line(spec, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    body, expected = BAD[name]
    assert expected in reason_of(spec, tmp_path, body)
    assert os.getcwd() == str(tmp_path)
    assert not list(tmp_path.glob("left*")) and not (tmp_path / "c" / "model").exists()


SAYS = "deterministic: true\n"
NOT_DETERMINISTIC = {
    "reads the seed": (
        DEFINED + "    torch.Generator().manual_seed(c.seed)\n" + SCORES,
        "deterministic: true, but it read ctx.seed (toy/method.py:4); delete that line",
    ),
    "reads drawn text": (
        DEFINED + "    c.calibration()\n" + SCORES,
        "but it read text drawn by the seed (toy/method.py:4)",
    ),
    "draws from torch": (
        DEFINED + "    torch.rand(3)\n" + SCORES,
        "but it drew from torch's global generator, which the seed sets (toy/method.py:4)",
    ),
    "draws from random": (
        "import random\n" + DEFINED + "    random.random()\n" + SCORES,
        "but it drew from the generator of the module random, which the seed sets (toy/method.py:4",
    ),
    "draws from numpy": (
        "import numpy\n" + DEFINED + "    numpy.random.rand()\n" + SCORES,
        "but it drew from numpy's global generator",
    ),
}


@pytest.mark.parametrize("name", NOT_DETERMINISTIC)
def test_a_false_claim_of_determinism_is_a_reason(spec, tmp_path, name):
    body, expected = NOT_DETERMINISTIC[name]
    assert expected in reason_of(spec, tmp_path, body, SAYS)


def test_text_that_the_campaign_fixes_is_no_draw(spec, tmp_path):
    fixed = changed(spec, calibration={**spec.calibration.model_dump(), "seed": 3})
    given = plugin(fixed, tmp_path, DEFINED + "    c.calibration()\n" + SCORES, SAYS)
    result = attempt(prune.prune, given, tmp_path / "c" / "prune.json")
    assert result["status"] == "ok", result["reason"]


def test_what_a_method_may_do_is_let_pass(spec, tmp_path):
    """Files in its own folder, temporary ones too; seeded draws; subprocesses' null device."""
    body = (
        "import numpy, os, random, tempfile\n" + DEFINED + "    (c.workdir / 'a').mkdir()\n"
        "    (c.workdir / 'a' / 'b').write_text('x')\n    (c.workdir / 'a' / 'b').unlink()\n"
        "    tempfile.TemporaryFile().write(b'x')\n    open(os.devnull, 'w').close()\n"
        "    numpy.random.default_rng(c.seed).random() + random.Random(c.seed).random()\n"
        "    torch.rand(1) + numpy.random.rand() + random.random()\n    c.calibration()\n" + SCORES
    )
    result = attempt(prune.prune, plugin(spec, tmp_path, body), tmp_path / "c" / "prune.json")
    assert result["status"] == "ok", result["reason"]


def test_all_global_generators_are_seeded_by_the_cell(spec, tmp_path):
    """So what a method draws from them is the same at every run."""
    body = (
        "import numpy, random\n"
        + DEFINED
        + (
            "    c.note('x', [random.random(), numpy.random.rand(), torch.rand(1).item()])\n"
            + SCORES
        )
    )
    given, notes = plugin(spec, tmp_path, body), []
    for run in range(2):
        result = attempt(prune.prune, given, tmp_path / str(run) / "prune.json")
        notes.append(result["method_notes"]["x"])
        random.random(), numpy.random.rand(), torch.rand(1)
    assert notes[0] == notes[1]


@pytest.mark.parametrize("printed", [10_000, 30_000_000])
def test_what_a_job_prints_is_cut_to_a_size(printed):
    reading, writing = os.pipe()
    with open(reading, "rb") as end:
        got = []
        reader = threading.Thread(target=lambda: got.append(end.read()))
        reader.start()
        with output.cut(writing) as target, open(target, "wb", closefd=False) as file:
            for i in range(printed // 1000):
                file.write(f"{i:>999}\n".encode())
        os.close(writing)
        reader.join(20)
    assert got[0].startswith(f"{0:>999}\n".encode())
    assert got[0].endswith(f"{printed // 1000 - 1:>999}\n".encode())
    assert (b"bytes of output are left out here" in got[0]) == (printed > output.BEGINNING)
    assert len(got[0]) <= min(printed, output.BEGINNING + output.END) + 100
