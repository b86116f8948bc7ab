"""Where methods and baselines are found: in the project, in folders, in installed packages.

Only their YAML is read, and none is imported. One that is broken stands in nobody's way: it is
refused, with its reason, where it is asked for.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from prunebench.errors import Invalid
from prunebench.plugins.description import DESCRIPTION, Plugin, read

__all__ = ["Plugin", "Plugins", "discover", "locate", "read"]

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("baselines", "methods")
VARIABLE = "PRUNEBENCH_PLUGINS"
GROUP = "prunebench.methods"


class Plugins(dict[str, Plugin]):
    """Plugins by name; asking for one that is unknown or broken raises Invalid with the reason.

    broken  name -> why it cannot be used
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: dict[str, str] = {}

    def __missing__(self, name: str) -> NoReturn:
        raise Invalid(self.why_not(name))

    def why_not(self, name: str) -> str:
        """Why there is no plugin of this name."""
        return self.broken.get(name) or (
            f"unknown method {name!r}; known: {', '.join(sorted(self))}"
        )

    def add(self, folder: Path, origin: str, name: str | None = None) -> None:
        """Read a plugin folder; what is wrong with it is kept. name: as of `read`."""
        known = name or folder.name
        try:
            plugin = read(folder, name=name, origin=origin)
        except Invalid as error:
            self._refuse(known, str(error))
            return
        other = self.get(plugin.name)
        if other is None and plugin.name not in self.broken:
            self[plugin.name] = plugin
        elif other is not None and other.folder.resolve() != folder.resolve():
            reason = f"{folder / DESCRIPTION}: name {plugin.name!r} is already taken by "
            self._refuse(plugin.name, f"{reason}{other.folder}; rename one of them")

    def _refuse(self, name: str, reason: str) -> None:
        self.pop(name, None)
        self.broken.setdefault(name, reason)


def discover(extra: Iterable[str | Path] = ()) -> Plugins:
    """All plugins by name, without importing any.

    Of the project, of `extra` places, of the folders in $PRUNEBENCH_PLUGINS, and of installed
    packages (entry points `prunebench.methods`). A place is a plugin folder or a folder of such.
    Raises Invalid for an extra place that holds none; what is wrong elsewhere is kept in `broken`.
    """
    found = Plugins()
    for parent in FOLDERS:
        for folder in _folders(ROOT / parent):
            found.add(folder, "the project")
    for place in map(Path, extra):
        folders = list(_folders(place))
        if not folders:
            raise Invalid(_nothing(place))
        for folder in folders:
            found.add(folder, "the campaign's plugins")
    for place in map(Path, filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))):
        folders = list(_folders(place.expanduser()))
        if not folders:
            found.broken.setdefault(f"${VARIABLE}", f"${VARIABLE}: {_nothing(place)}")
        for folder in folders:
            found.add(folder, f"${VARIABLE}")
    for point in metadata.entry_points(group=GROUP):
        _add_package(found, point)
    return found


def locate(name: str, places: Iterable[str | Path] = ()) -> Plugin:
    """The plugin of a job: its own folder or one above it is named, or it is the project's.

    Reads no other plugin's description. Raises Invalid.
    """
    for place in map(Path, places):
        own = (place / DESCRIPTION).is_file()
        folder = place if own else place / name
        if folder.is_dir():
            return read(folder, name=name)
    for parent in FOLDERS:
        if (ROOT / parent / name).is_dir():
            return read(ROOT / parent / name)
    raise Invalid(f"no plugin {name!r} in {', '.join(map(str, places)) or 'the project'}")


def is_outside(plugin: Plugin) -> bool:
    """Whether a plugin lies outside the project."""
    return plugin.folder.resolve().parent not in [ROOT / name for name in FOLDERS]


def _folders(place: Path) -> Iterator[Path]:
    """Folders that are plugins, or are meant to be: with a method.yaml or a method.py."""
    if (place / DESCRIPTION).is_file():
        yield place
        return
    for folder in sorted(place.glob("*")) if place.is_dir() else ():
        if (folder / DESCRIPTION).is_file() or (folder / "method.py").is_file():
            yield folder


def _nothing(place: Path) -> str:
    if not place.is_dir():
        return f"{place}: no such folder of plugins"
    return f"{place}: expected a plugin folder or folders of plugins, found no {DESCRIPTION}"


def _add_package(found: Plugins, point: metadata.EntryPoint) -> None:
    """A package's plugin: its entry point names the package that is the plugin's folder."""
    package = point.dist.name if point.dist is not None else "?"
    where = f"package {package}: entry point {point.name!r}"
    if point.attr:
        found.broken[point.name] = (
            f"{where}: expected the name of a package, got {point.value!r}; leave out ':...'"
        )
        return
    try:
        spec = importlib.util.find_spec(point.module)
    except Exception as error:  # a package above it is imported, and may do anything
        found.broken[point.name] = f"{where}: cannot import {point.module}: {error}"
        return
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        found.broken[point.name] = (
            f"{where}: cannot import {point.module}: there is no such package; install it again"
        )
        return
    found.add(Path(places[0]), f"the package {package}", name=point.name)
