"""What the project depends on: licences as packages state them, and an offline audit of the lock.

    python benchmarks/dependencies.py [--write docs/dependencies.md]

The audit says whether every line of requirements.lock is one exact version, whether that version is
installed, and whether the installed files are those that each package's own list has, by SHA-256.
Nothing is asked of a network. Ends with status 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
BEGIN, END = (
    "<!-- table: python benchmarks/dependencies.py --write FILE -->",
    "<!-- end of table -->",
)
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[0-9][A-Za-z0-9.]*)")
LONGEST = 60
"""Characters of a licence: some packages put the whole text where its name belongs."""


def main() -> int:
    """Audit the lock; write the table where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="document whose table is written anew")
    options = parser.parse_args()
    text = LOCK.read_text(encoding="utf-8")
    found = [*odd_lines(text), *not_installed(text), *changed_files(text)]
    for problem in found:
        print(problem)
    pinned = locked(text)
    print(f"{len(pinned)} packages pinned, {len(found)} problems, no hashes in the lock")
    if options.write:
        write(options.write, licences(pinned))
    return 1 if found else 0


def locked(lock: str) -> dict[str, str]:
    """Name -> version of every exact pin."""
    found = (PIN.fullmatch(line) for line in lock.splitlines())
    return {match["name"]: match["version"] for match in found if match}


def odd_lines(lock: str) -> Iterator[str]:
    """Lines that are no exact pin: ranges, options, addresses, files."""
    for number, line in enumerate(lock.splitlines(), start=1):
        if line.strip() and not line.startswith("#") and not PIN.fullmatch(line):
            yield f"{LOCK.name}:{number}: not one exact version: {line}"


def not_installed(lock: str) -> Iterator[str]:
    """Pins that are not what is installed; a build's label (+cpu) does not count."""
    for name, version in locked(lock).items():
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            installed = "absent"
        if installed != version:
            yield f"{name}: {version} is locked, {installed} is installed"


def changed_files(lock: str) -> Iterator[str]:
    """Installed files that are not what their package says they are."""
    for name in locked(lock):
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if file.hash is None or file.hash.mode != "sha256":
                continue
            if not path.is_file():
                yield f"{name}: {file} is missing"
            elif _sha256(path) != file.hash.value:
                yield f"{name}: {file} is not what was installed"


def licences(pinned: dict[str, str]) -> list[tuple[str, str, str]]:
    """(name, version, licence) of every locked package, as its metadata states it."""
    return [
        (name, version, _licence(name))
        for name, version in sorted(pinned.items(), key=lambda pair: pair[0].lower())
    ]


def write(document: Path, rows: list[tuple[str, str, str]]) -> None:
    """Put the table into a document, between its marks."""
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"{document}: expected the lines {BEGIN} and {END}")
    lines = ["| package | version | licence |", "|---|---|---|"]
    lines += [f"| {name} | {version} | {licence} |" for name, version, licence in rows]
    table = "\n".join(lines)
    document.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def _licence(name: str) -> str:
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed"
    classes = [
        entry.rpartition(" :: ")[2]
        for entry in about.get_all("Classifier") or ()
        if entry.startswith("License :: ") and entry != "License :: OSI Approved"
    ]
    plain = str(about.get("License") or "").strip()
    short = plain if plain and "\n" not in plain and len(plain) <= LONGEST else ""
    found = (
        about.get("License-Expression") or ", ".join(classes) or short or plain.partition("\n")[0]
    )
    return str(found).strip().replace("|", "/") or "not stated"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


if __name__ == "__main__":
    sys.exit(main())
