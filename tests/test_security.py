"""Nothing that is read runs code, nothing that is named leads out of its folder."""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.record import stage_forms, stages
from prunebench.schema import check_schema

SOURCES = ("prunebench", "methods", "baselines")
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {
    "torch.load", "pandas.read_pickle", "pd.read_pickle", "os.system", "os.popen", "eval", "exec",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load",
}  # fmt: skip
FLAGS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False}
PICKLED = re.compile(rb"\x80[\x02-\x05][\x95(c}\]K]")
"""How a pickle of protocol 2 to 5 begins."""


@cache
def nodes(code: str) -> tuple[ast.AST, ...]:
    """The calls and imports of a module."""
    wanted = (ast.Call, ast.Import, ast.ImportFrom)
    return tuple(node for node in ast.walk(ast.parse(code)) if isinstance(node, wanted))


def dangers(code: str) -> Iterator[str]:
    """What in a module would run code from a file or from a text."""
    for node in nodes(code):
        names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (f"imports {name}" for name in names if name.split(".")[0] in PICKLES)
        if isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in CALLS:
                yield f"calls {name}"
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if keyword.arg in FLAGS and value is FLAGS[keyword.arg]:
                    yield f"sets {keyword.arg}={value}"


def modules() -> list[Path]:
    return [path for name in SOURCES for path in (REPOSITORY / name).rglob("*.py")]


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, or an archive with one in it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
    with path.open("rb") as file:
        return bool(PICKLED.match(file.read(16)))


def test_no_module_runs_what_it_reads() -> None:
    found = {str(path): list(dangers(path.read_text(encoding="utf-8"))) for path in modules()}
    assert len(found) > 200
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from dill import loads", "import joblib.numpy_pickle",
        "torch.load(path)", "eval(text)", "yaml.load(text)", "run(x, shell=True)",
        "np.load(path, allow_pickle=True)", "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "torch.load(path, weights_only=False)",
    ],
)  # fmt: skip
def test_each_danger_is_seen(code: str) -> None:
    assert list(dangers(code))


def test_no_committed_file_is_a_pickle() -> None:
    files = [p for name in (*SOURCES, "results") for p in (REPOSITORY / name).rglob("*")]
    assert [path for path in files if path.is_file() and is_pickle(path)] == []


def test_pickles_are_known(tmp_path: Path) -> None:
    import pickle

    import torch

    for protocol in (2, 3, 4, 5):
        (tmp_path / "p").write_bytes(pickle.dumps({"a": [1]}, protocol=protocol))
        assert is_pickle(tmp_path / "p"), protocol
    torch.save({"a": torch.ones(2)}, tmp_path / "t")
    assert is_pickle(tmp_path / "t") and not is_pickle(Path(__file__))


@pytest.mark.parametrize("schema", sorted((REPOSITORY / "prunebench" / "schemas").glob("*.yaml")))
def test_no_pattern_lets_a_line_end_follow(schema: Path) -> None:
    """The end of a pattern is the end of the text."""
    for pattern in patterns(read_yaml(schema)):
        assert pattern.startswith("^") and pattern.endswith("$"), pattern
        for text in ("a", "a1", "2401.12345", "task:x", "ppl/a:b"):
            if re.fullmatch(pattern[:-1], text):
                check_schema(text, {"pattern": pattern}, where="x")
                with pytest.raises(Invalid, match="does not match"):
                    check_schema(f"{text}\n", {"pattern": pattern}, where="x")


def patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
        for value in schema.values():
            yield from patterns(value)
    for value in schema if isinstance(schema, list) else ():
        yield from patterns(value)


def test_no_expression_ends_in_a_dollar() -> None:
    """Python's `$` lets a line end follow; `\\Z` and fullmatch do not."""
    found = [
        f"{path.name}:{node.lineno}"
        for path in modules()
        for node in nodes(path.read_text(encoding="utf-8"))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.")
        if node.args and ast.unparse(node.args[0]).rstrip("'\"").endswith("$")
    ]
    assert found == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\0b"])
def test_a_result_names_no_files_outside_its_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / "prune.json"
    stages.write(path, {"status": "failed", "reason": "x", "written": {name: "1-a"}})
    with pytest.raises(Invalid, match="written: "):
        stage_forms.read(path)


@pytest.mark.parametrize("path", ["../model", "/model", "a/../../model"])
def test_a_result_names_no_model_outside_its_folder(path: str, tmp_path: Path) -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parent / "inputs"))
    from fuzz_results import RESULTS

    result = RESULTS["prune.json"]
    stages.write(tmp_path / "prune.json", {**result, "export": {**result["export"], "path": path}})
    with pytest.raises(Invalid, match="export.path"):
        stage_forms.read(tmp_path / "prune.json")


def test_the_lock_and_the_table_of_licences_agree() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("d", REPOSITORY / "benchmarks/dependencies.py")
    assert spec and spec.loader
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    text = (REPOSITORY / "requirements.lock").read_text()
    rows = re.findall(
        r"^\| (\S+) \| (\S+) \| (.+) \|$", (REPOSITORY / "docs/dependencies.md").read_text(), re.M
    )
    assert {name: version for name, version, _ in rows if name != "package"} == audit.locked(text)
    assert list(audit.odd_lines(text)) == []
    for line in ("numpy>=2", "--index-url x", "numpy @ file:///x", "./here"):
        assert list(audit.odd_lines(line)) != []
