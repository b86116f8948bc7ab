"""Packaging: one list of versions, which pyproject.toml, make, conda and the code agree with.

The checks are functions from file contents to a list of problems, so that each of them is also
shown a case that it must find. The Makefile runs with a stand-in for Python that only writes down
what it is asked to do.
"""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import prunebench

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
# `make test` promises the locked versions; elsewhere (a cluster's own torch) the ranges must hold.
LOCKED = os.environ.get("PRUNEBENCH_LOCKED") == "1"


# ---------------------------------------------------------------- the lock and the ranges


def pins(lock: str) -> dict[str, list[str]]:
    """Every pinned name (canonical) with its versions, in the order of the file."""
    found: dict[str, list[str]] = {}
    for line in lock.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, version = line.partition("==")
            found.setdefault(canonicalize_name(name.strip()), []).append(version.strip())
    return found


def declared(project: Mapping) -> list[Requirement]:
    """What pyproject.toml asks for: to build, to run, and in each of its extras."""
    table = project["project"]
    texts = project["build-system"]["requires"] + table["dependencies"]
    return [Requirement(t) for t in sum(table["optional-dependencies"].values(), texts)]


def lock_problems(project: Mapping, lock: str) -> list[str]:
    """Lines that are no exact pin, names pinned twice, and declared names without a fitting pin."""
    problems = []
    for line in lock.splitlines():
        if line.strip() and not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line):
            problems.append(f"not an exact public version: {line}")
    locked = pins(lock)
    problems += [f"{name}: {len(v)} pins" for name, v in locked.items() if len(v) != 1]
    for need in declared(project):
        for version in locked.get(canonicalize_name(need.name), []) or [None]:
            if version is None:
                problems.append(f"{need}: no pin")
            elif not need.specifier.contains(version.strip()):
                problems.append(f"{need}: pinned to {version}")
    return problems


def installed_problems(wanted: Iterable[Requirement], installed: Mapping[str, str]) -> list[str]:
    """Requirements that the installed versions do not meet; a build label (+cpu) does not count."""
    problems = []
    for need in wanted:
        version = installed.get(canonicalize_name(need.name))
        if version is None or not need.specifier.contains(Version(version).public):
            problems.append(f"{need}: installed is {version}")
    return problems


def closure_problems(roots: Iterable[Requirement], lock: str) -> list[str]:
    """Names that are needed, directly or not, without a pin; and pins that nothing needs."""
    queue, needed = [(need, "") for need in roots], set()
    problems, locked = [], pins(lock)
    while queue:
        need, parent = queue.pop()
        name = canonicalize_name(need.name)
        if name not in locked:
            # torch pins the CUDA packages of its own build; other builds have none
            if parent != "torch":
                problems.append(f"{name}: needed by {parent or 'pyproject.toml'}, no pin")
            continue
        for key in {(name, extra) for extra in ["", *need.extras]} - needed:
            needed.add(key)
            for child in map(Requirement, metadata.requires(name) or []):
                if child.marker is None or child.marker.evaluate({"extra": key[1]}):
                    queue.append((child, name))
    return problems + [f"{n}: nothing needs it" for n in locked if (n, "") not in needed]


def installed() -> dict[str, str]:
    return {canonicalize_name(d.metadata["Name"]): d.version for d in metadata.distributions()}


def test_lock_pins_each_declared_name_once_and_in_range() -> None:
    assert lock_problems(PROJECT, LOCK) == []


@pytest.mark.parametrize(
    ("lock", "problem"),
    [
        (LOCK + "numpy==2.0.0\n", "numpy: 2 pins"),
        (re.sub(r"(?m)^peft==.*\n", "", LOCK), "no pin"),
        (re.sub(r"(?m)^torch==.*", "torch==2.10.0", LOCK), "pinned to 2.10.0"),
        (re.sub(r"(?m)^torch==.*", "torch>=2.13.0", LOCK), "not an exact public version"),
        (re.sub(r"(?m)^(torch==.*)", r"\1+cpu", LOCK), "not an exact public version"),
        ("--extra-index-url somewhere\n" + LOCK, "not an exact public version"),
    ],
)
def test_lock_check_finds(lock: str, problem: str) -> None:
    assert any(problem in found for found in lock_problems(PROJECT, lock))


def test_installed_versions_are_the_promised_ones() -> None:
    runtime = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    exact = [Requirement(f"{name}=={versions[0]}") for name, versions in pins(LOCK).items()]
    assert installed_problems(exact if LOCKED else runtime, installed()) == []


def test_installed_check_finds_other_and_absent_versions() -> None:
    need = [Requirement("torch==2.13.0")]
    assert installed_problems(need, {"torch": "2.13.0+cu130"}) == []
    assert installed_problems(need, {"torch": "2.13.1"}) == ["torch==2.13.0: installed is 2.13.1"]
    assert installed_problems(need, {}) == ["torch==2.13.0: installed is None"]


@pytest.mark.skipif(not LOCKED, reason="not the locked environment: its packages need others")
def test_lock_is_complete_and_holds_nothing_else() -> None:
    assert closure_problems(declared(PROJECT), LOCK) == []


def test_closure_check_finds_missing_and_idle_pins() -> None:
    roots = [Requirement("jinja2")]  # which needs MarkupSafe
    assert closure_problems(roots, "Jinja2==3\nMarkupSafe==3\n") == []
    assert closure_problems(roots, "Jinja2==3\n") == ["markupsafe: needed by jinja2, no pin"]
    idle = closure_problems(roots, "Jinja2==3\nMarkupSafe==3\npytest==9\n")
    assert idle == ["pytest: nothing needs it"]


# ---------------------------------------------------------------- what the code imports


def import_problems(sources: Mapping[str, str], allowed: set[str]) -> list[str]:
    """Imports, wherever they stand in a file, of distributions that are not declared."""
    owners, problems = metadata.packages_distributions(), []
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            for top in {module.partition(".")[0] for module in modules}:
                dists = {canonicalize_name(d) for d in owners.get(top, [])}
                if dists and not dists & allowed:
                    problems.append(f"{name} imports {top}, which pyproject.toml does not declare")
    return problems


def test_library_and_plugins_import_declared_dependencies_only() -> None:
    folders = ["prunebench", "methods", "baselines", "workflow"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in files}
    table = PROJECT["project"]
    names = {canonicalize_name(Requirement(t).name) for t in table["dependencies"]}
    kit = {canonicalize_name(Requirement(t).name) for t in table["optional-dependencies"]["kit"]}
    runner = "prunebench/testing/runner.py"  # the one place that may need the extra
    of_kit = {runner: sources.pop(runner)}
    assert sources and import_problems(sources, names | {"prunebench"}) == []
    assert import_problems(of_kit, names | {"prunebench"}) != []
    assert import_problems(of_kit, names | {"prunebench"} | kit) == []


def test_import_check_finds_undeclared_even_inside_functions() -> None:
    source = "def f():\n    from pytest import raises\n    import numpy.linalg, os\n"
    assert import_problems({"x.py": source}, {"numpy", "pytest"}) == []
    assert len(import_problems({"x.py": source}, {"numpy"})) == 1


# ---------------------------------------------------------------- conda, citation, version


def conda_problems(environment: Mapping, requires_python: str) -> list[str]:
    """The conda way in must take a fitting Python and nothing but the lock and the project."""
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = [e["pip"] for e in environment["dependencies"] if isinstance(e, dict) and "pip" in e]
    python = next((e.split("=")[-1] for e in conda if e.startswith("python=")), None)
    problems = []
    if python is None or not SpecifierSet(requires_python).contains(python):
        problems.append(f"python {python} is not {requires_python}")
    if {entry.partition("=")[0] for entry in conda} != {"python", "pip"}:
        problems.append(f"conda may pin python and pip only: {conda}")
    if pip != [["-r requirements.lock", "-e ."]]:
        problems.append(f"the pip section must be the lock and the project: {pip}")
    return problems


def test_conda_environment_takes_its_versions_from_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert conda_problems(environment, PROJECT["project"]["requires-python"]) == []


@pytest.mark.parametrize(
    "dependencies",
    [
        ["python=3.10", "pip", {"pip": ["-r requirements.lock", "-e ."]}],
        ["python=3.11", "pip", "pytorch=2.13", {"pip": ["-r requirements.lock", "-e ."]}],
        ["python=3.11", "pip", {"pip": ["torch==2.13.0", "-e ."]}],
        ["python=3.11", "pip"],
    ],
)
def test_conda_check_finds(dependencies: list) -> None:
    assert len(conda_problems({"dependencies": dependencies}, ">=3.11")) == 1


def test_version_and_licence_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == prunebench.__version__
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


def test_console_script_exists() -> None:
    assert PROJECT["project"]["scripts"] == {"prunebench": "prunebench.cli:main"}
    scripts = metadata.entry_points(group="console_scripts", name="prunebench")
    assert [script.value for script in scripts] == ["prunebench.cli:main"]
