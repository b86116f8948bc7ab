"""A new plugin folder: a method that already runs, and what goes with it."""

from __future__ import annotations

import re
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.outside import SHARED
from prunebench.plugins.discovery import FOLDERS, ROOT, discover
from prunebench.whole import whole_folder, write_text

HERE = Path(__file__).parent
FILES = {
    "method.py.j2": "method.py",
    "method.yaml.j2": "method.yaml",
    "README.md.j2": "README.md",
    "test_method.py.j2": "test_{name}.py",
}
NAME = re.compile(r"[a-z][a-z0-9_]*")


def make(name: str, place: Path | None = None) -> Path:
    """Write the plugin folder `name` into `place` (default: the project's methods); its path.

    Raises Invalid for a name that no plugin can have, or that is taken.
    """
    if not NAME.fullmatch(name) or name == SHARED:
        raise Invalid(
            f"name: {name!r} cannot be a method's: use small letters, digits and _, a letter first"
        )
    place = ROOT / FOLDERS[-1] if place is None else place
    folder, known = place / name, discover()
    if folder.exists():
        raise Invalid(f"{folder}: exists already; give another name")
    if name in known or name in known.broken:
        where = known[name].folder if name in known else known.broken[name]
        raise Invalid(f"name {name!r} is already taken by {where}; give another")
    try:
        with whole_folder(folder) as draft:
            for template, file in FILES.items():
                write_text(draft / file.format(name=name), render(template, name, folder))
    except OSError as error:
        raise Invalid(f"{folder}: cannot be made: {error.strerror}; name another --in") from None
    return folder


def render(template: str, name: str, folder: Path) -> str:
    """A file of the new folder."""
    from jinja2 import Template

    text = (HERE / template).read_text(encoding="utf-8")
    return str(Template(text, keep_trailing_newline=True).render(name=name, folder=shown(folder)))


def shown(folder: Path) -> str:
    """A folder as one would type it here."""
    whole, here = folder.resolve(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)
