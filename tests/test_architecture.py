"""The floors of docs/architecture.md: imports go down, no circle, every package is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import REPOSITORY

SOURCE = REPOSITORY / "prunebench"
GUARD = "TYPE_CHECKING"


def modules() -> dict[str, Path]:
    """prunebench.a.b -> its file."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: set[str]) -> Iterator[str]:
    """Modules that a module imports when it runs, inside functions too; not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and GUARD in ast.unparse(n.test)]
    guarded = {id(inner) for guard in guards for inner in ast.walk(guard)}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in guarded or not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        base = getattr(node, "module", None) or ""
        if level := getattr(node, "level", 0):
            above = ".".join(package.split(".")[: len(package.split(".")) - level + 1])
            base = f"{above}.{base}".rstrip(".")
        for alias in node.names:
            wanted = f"{base}.{alias.name}".lstrip(".")
            while wanted and wanted not in known:
                wanted = wanted.rpartition(".")[0]
            if wanted and wanted != name:
                yield wanted


def floors() -> dict[str, int]:
    """Package -> floor, as the document says."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    return {name: int(floor) for floor, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.M)}


def package_of(module: str) -> str:
    return (module.split(".") + ["", ""])[1]


def test_imports_go_down_and_every_package_is_on_a_floor() -> None:
    files, floor = modules(), floors()
    assert {package_of(name) for name in files} - {"", "__main__"} == set(floor)
    climbs = [
        f"{name} imports {other}"
        for name, path in files.items()
        for other in imported(name, path, set(files))
        if package_of(other) and package_of(name) in floor
        if package_of(name) != package_of(other)
        if floor[package_of(other)] >= floor[package_of(name)]
    ]
    assert not climbs


def test_no_module_imports_itself_by_way_of_others() -> None:
    files = modules()
    graph = {name: set(imported(name, path, set(files))) for name, path in files.items()}
    assert sum(map(len, graph.values())) > 400
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


def test_any_stands_in_one_place() -> None:
    folders = ("prunebench", "methods", "baselines")
    users = [
        str(path.relative_to(REPOSITORY))
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "Any"
    ]
    assert set(users) == {"prunebench/untyped.py"} and len(users) <= 30
