"""What jobs read from outside, known by its content: files by digest, hub repositories by commit.

Digests are kept in a file of the user's cache folder (PRUNEBENCH_CACHE, else XDG_CACHE_HOME, else
~/.cache), each with the size, the times of change and the inode that the file had. So a model is
read once for its digest, and again only when one of its files was touched; a dry run looks at no
more than that. Imports no torch.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import joined, sha256
from prunebench.whole import write_json

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "PRUNEBENCH_CACHE"
COMMIT = re.compile(r"[0-9a-f]{40}")
BESIDE = ("*.json", "*.txt", "*.jinja", "*.py", "*.tiktoken", "*.model")
"""What loading reads beside the weights: configuration, tokenizer, code of the checkpoint."""
OWN = "prunebench.json"
LARGE = 2**30


def file_digest(path: Path) -> str:
    """SHA-256 of a file, from the cache where the file is as it was then."""
    return files_digests([path])[path]


def files_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each file; those that changed since are read, and the cache is brought up."""
    known = _read_cache()
    found, new = {}, {}
    for path in paths:
        place, state = str(path.resolve()), _state(path)
        entry = known.get(place)
        if entry is None or entry[:-1] != state:
            if path.stat().st_size >= LARGE:
                logger.warning("reading %s once, to know its content", path)
            entry = [*state, sha256(path)]
            new[place] = entry
        found[path] = str(entry[-1])
    if new:
        _write_cache({**_read_cache(), **new})
    return found


def model_identity(folder: Path) -> dict[str, str]:
    """Digests of a model folder: of its weights, and of what lies beside them and is read too."""
    from prunebench.models.checks import weight_files

    weights = weight_files(folder)
    beside = {path for pattern in BESIDE for path in folder.glob(pattern)} - {folder / OWN}
    digests = files_digests([*weights, *sorted(beside)])
    return {
        "weights_sha256": joined([digests[path] for path in weights]),
        "files_sha256": joined([f"{path.name} {digests[path]}" for path in sorted(beside)]),
    }


def commit_of(kind: str, repository: str, revision: str | None) -> str | None:
    """The commit that a revision of a hub repository stands for now; None if nobody can say.

    kind  "model" or "dataset". A commit stands for itself; else the hub is asked, or offline (or
    where it does not answer) the hub's cache on this disk.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        try:
            info = HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=10)
            return info.sha
        except Exception as error:  # its client's classes differ between versions
            first = next(iter(str(error).splitlines()), repr(error))
            logger.warning("%s %s: the hub does not say its commit: %s", kind, repository, first)
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}" / "refs"
    reference = folder / (revision or "main")
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


class Revisions:
    """The commits of a campaign's hub repositories: asked for once, then those it began with.

    file  results/<campaign>/revisions.json; without it the hub is asked anew
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, str] = {}
        if file.is_file():
            try:
                self.known = dict(json.loads(file.read_text(encoding="utf-8")))
            except ValueError as error:
                raise Invalid(f"{file}: not valid JSON: {error}; delete it") from None

    def commit(self, kind: str, repository: str, revision: str | None) -> str | None:
        """As `commit_of`, and the same answer at every later call."""
        key = f"{kind} {repository} {revision or 'main'}"
        if key not in self.known and (commit := commit_of(kind, repository, revision)):
            self.known[key] = commit
        return self.known.get(key)

    def keep(self) -> None:
        """Write down what was found, for the calls to come."""
        if self.known:
            write_json(self.file, self.known)


def _state(path: Path) -> list[int | str]:
    """What changes when a file is written: also where size and modification time are put back."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _cache_file() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(given) if given else root / "prunebench") / "digests.json"


def _read_cache() -> Mapping[str, list[int | str]]:
    """What is known; nothing where the file is absent or not what this module writes."""
    try:
        found = json.loads(_cache_file().read_text(encoding="utf-8"))
        entries = {key: entry for key, entry in found.items() if len(entry) == 5}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {k: e for k, e in entries.items() if re.fullmatch("[0-9a-f]{64}", str(e[-1]))}


def _write_cache(entries: Mapping[str, list[int | str]]) -> None:
    """Keep the digests of files that are still there; without a cache they are made each time."""
    try:
        write_json(_cache_file(), {k: e for k, e in entries.items() if Path(k).exists()})
    except OSError as error:
        logger.warning("no cache of digests: %s", error)
