"""Code in folders outside the package: which files belong to it, their digest, their import.

Methods and model families are such folders. Those that lie in one folder may share code: what is in
the folder `shared` beside them can be imported as if it lay in each of them (`from .norms import
unit_norms` finds `shared/norms.py`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.untyped import Call, Foreign

SHARED = "shared"
TOLD = ("README*", "*.md", "paper.yaml", "LICENSE*", "test_*", ".*")
"""Files of a folder that only people, tests and tables read."""


def digest(folder: Path, *others: str) -> str:
    """SHA-256 over the code and data of a folder, and over the shared code that it imports.

    others  names that count whatever TOLD says; tests, papers and READMEs do not
    """
    parts = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (path.name in others or _is_read(path.relative_to(folder))):
            parts.update(str(path.relative_to(folder)).encode() + b"\0")
            parts.update(path.read_bytes() + b"\0")
    for path in shared_files(folder):
        parts.update(f"{SHARED}/{path.name}".encode() + b"\0")
        parts.update(path.read_bytes() + b"\0")
    return parts.hexdigest()


def shared_files(folder: Path) -> list[Path]:
    """Files of the folder `shared` beside it that its modules import, directly or by way of others.

    Of a package in there all modules count. A file that does not parse imports nothing: it fails
    when it is imported.
    """
    place = folder.parent / SHARED
    if not place.is_dir() or place == folder:
        return []
    found: set[Path] = set()
    open_files = set(_modules(folder))
    while open_files:
        names = {name for path in open_files for name in _relative_imports(path)}
        near = {path.relative_to(folder).parts[0] for path in _modules(folder)}
        outside = {name for name in names if not {name, f"{name}.py"} & near}
        reached = {path for name in outside for path in _module_files(place, name)}
        open_files = reached - found
        found |= reached
    return sorted(found)


def function(folder: Path, plugin: str, file: str, name: str, arguments: str) -> Call:
    """Import `file`.py of a plugin's folder and return its function `name`.

    Raises Invalid where there is no such file or function. The folder is imported as the package
    `prunebench_plugin_<plugin>`.
    """
    path = folder / f"{file}.py"
    if not path.is_file():
        raise Invalid(f"{folder}: expected a file {path.name} with {name}{arguments}")
    found = module(folder, f"prunebench_plugin_{plugin}", file)
    if not callable(getattr(found, name, None)):
        raise Invalid(f"{path}: expected a function {name}{arguments}")
    called: Call = getattr(found, name)
    return called


def module(folder: Path, package: str, file: str) -> Foreign:
    """Import `file`.py of a folder, which becomes a package of this name."""
    _forget(package, folder)
    _import(package, folder / "__init__.py", [str(folder), str(folder.parent / SHARED)])
    return _import(f"{package}.{file}", folder / f"{file}.py", None)


def _forget(package: str, folder: Path) -> None:
    """Let modules of another folder, that was imported under the same name, go."""
    known = sys.modules.get(package)
    if known is not None and str(folder) not in getattr(known, "__path__", ()):
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[name]


def _import(name: str, path: Path, search: list[str] | None) -> Foreign:
    if not path.is_file():
        spec = importlib.machinery.ModuleSpec(name, None, is_package=search is not None)
        spec.submodule_search_locations = search
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        return module
    found = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def _is_read(path: Path) -> bool:
    """Whether code may read this file when it runs; `path` within its folder."""
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    return not hidden and not any(fnmatch(path.name, pattern) for pattern in TOLD)


def _modules(folder: Path) -> list[Path]:
    """The Python files of a folder that are code of the method."""
    return [
        path
        for path in folder.rglob("*.py")
        if not path.name.startswith("test_") and "__pycache__" not in path.parts
    ]


def _module_files(place: Path, name: str) -> Iterator[Path]:
    if (place / f"{name}.py").is_file():
        yield place / f"{name}.py"
    elif (place / name).is_dir():
        yield from _modules(place / name)


def _relative_imports(path: Path) -> Iterator[str]:
    """First parts of what a file imports from its own package: `a` of `from .a.b import c`."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.module:
                yield node.module.partition(".")[0]
            else:
                yield from (alias.name for alias in node.names)
