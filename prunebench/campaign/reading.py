"""Campaign files as plain data, and the folders that they name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from prunebench.errors import Invalid
from prunebench.files import read_yaml

OUTSIDE = ("plugins", "families")
"""Keys that name folders, relative to the campaign file."""


def read_files(files: Sequence[Path]) -> tuple[dict[str, JsonValue], Path]:
    """Campaign files laid over each other, and the folder that `plugins` are relative to.

    That is the folder of the last file which names some. Raises Invalid for what is no mapping.
    """
    merged: dict[str, JsonValue] = {}
    folder = files[-1].parent
    for file in files:
        raw = read_yaml(file)
        if not isinstance(raw, dict):
            raise Invalid(f"{file}: expected keys of a campaign, got {type(raw).__name__}")
        if any(key in raw for key in OUTSIDE):
            folder = file.parent
        merged = _over(merged, raw)
    return merged, folder


def _over(below: dict[str, JsonValue], above: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Mappings are merged key by key, as Snakemake does; anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = _over(old, value) if both else value  # type: ignore[arg-type]
    return merged


def portable(raw: Mapping[str, JsonValue], folder: Path) -> dict[str, JsonValue]:
    """A campaign as its results keep it: its file was in `folder`, theirs is elsewhere."""
    kept = dict(raw)
    for key in OUTSIDE:
        if isinstance(places := raw.get(key), list):
            kept[key] = [str(below(folder, str(place)).resolve()) for place in places]
    return kept


def plugin_places(path: Path) -> list[Path]:
    """Where a campaign file says that plugins lie; any other path stands for itself."""
    if path.suffix not in (".yaml", ".yml"):
        return [path]
    raw, folder = read_files([path])
    named = raw.get("plugins")
    return [below(folder, str(place)) for place in named] if isinstance(named, list) else []


def from_here(folder: Path) -> str:
    """A folder from the working folder on where it is below that, else the whole path."""
    whole, here = folder.resolve(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def below(folder: Path, place: str) -> Path:
    """A place that a campaign file in `folder` names."""
    return folder / Path(place).expanduser()
