"""The plugins that there are, for a person: what `prunebench list` prints."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping

from prunebench.plugins.description import Plugin
from prunebench.plugins.discovery import Plugins, is_outside
from prunebench.plugins.template import shown
from prunebench.untyped import Plain

WIDTH = 120


def list_text(plugins: Plugins) -> str:
    """Methods and baselines with parameters, families and place; broken ones are not in it."""
    width = max(len(name) for name in plugins)
    blocks = []
    for kind, title in (("baseline", "Baselines"), ("method", "Methods")):
        blocks.append(title)
        for name, plugin in sorted(plugins.items()):
            if plugin.kind == kind:
                first, *rest = _lines(plugin)
                blocks.append(f"  {name:<{width}}  {first}")
                blocks += [" " * (width + 4) + line for line in rest]
    return "\n".join(blocks)


def _lines(plugin: Plugin) -> Iterator[str]:
    yield plugin.summary
    told = " ".join(f"{name}={_short(value)}" for name, value in plugin.defaults.items())
    yield from textwrap.wrap(told, WIDTH, break_long_words=False, break_on_hyphens=False)
    place = shown(plugin.folder)
    where = f"outside the project: {place} ({plugin.origin})" if is_outside(plugin) else place
    yield f"{_families(plugin)}; {where}"


def _families(plugin: Plugin) -> str:
    named = "all families" if plugin.families is None else f"families {', '.join(plugin.families)}"
    return f"{named} that have {', '.join(plugin.needs)}" if plugin.needs else named


def _short(value: Plain) -> str:
    """A default as YAML would have it on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, Mapping)):
        return json.dumps(value).replace('"', "").replace(" ", "")
    return json.dumps(value)
