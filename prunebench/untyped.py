"""Names for what has no type, each with the reason. `Any` itself stands nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]  # plain data as a job writes it; `record.form` checks what a record keeps
JsonMap = Mapping[str, Any]  # the same, to be read only
Plain = Any  # a value of such data, or of a YAML file, before anybody has checked it
Module = Any  # a module of a family's own class: no type knows its attributes, tests do
Foreign = Any  # an object of a library that has no types (lm-eval, peft, pynvml, tabulate, Jinja)
Passed = Any  # an argument that is handed on to a library as it came
Call = Callable[..., Any]  # a model or a plugin's function, called as its library calls it
