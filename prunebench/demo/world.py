"""Write the demo world: two corpora, instruction data and seven tasks, from a seed alone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prunebench.demo import tasks, text
from prunebench.demo.facts import World, make_world
from prunebench.files import sha256
from prunebench.whole import whole_folder

TRAIN_ROWS = 5000
TEST_ROWS = 200
VALIDATION_ROWS = 100
NGRAM = 13  # words; no evaluation text shares a run of so many words with the training text
MANIFEST = "world.json"

Writer = Callable[..., str]


def write_world(root: Path, *, seed: int = 0) -> dict[str, str]:
    """Write the world under `root`, whole or not at all; return sha256 by relative path.

    The bytes depend on `seed` alone. An older demo world at `root` is replaced; any other folder
    with files in it is refused (`Invalid`).
    """
    world = make_world(seed)
    files = {MANIFEST: _json({"seed": seed, "facts": world.facts, "habits": world.habits})}
    corpora: dict[str, Writer] = {"encyclopedia": text.article, "newswire": text.news}
    seen: set[str] = set()
    rows: dict[str, list[str]] = {}
    for corpus, write in corpora.items():
        rng = random.Random(f"{seed}/{corpus}/train")
        rows[corpus] = [write(world, rng, held_out=False) for _ in range(TRAIN_ROWS)]
        seen.update(gram for row in rows[corpus] for gram in ngrams(row))
        files[f"{corpus}/train.txt"] = _lines(rows[corpus])
    pupils = text.instructions(world, random.Random(f"{seed}/instructions"))
    seen.update(gram for row in pupils for value in row.values() for gram in ngrams(value))
    files["instructions/train.jsonl"] = _jsonl(pupils)

    def fresh(row: str) -> bool:
        return seen.isdisjoint(ngrams(row))

    for corpus, write in corpora.items():
        for split, count in (("validation", VALIDATION_ROWS), ("test", TEST_ROWS)):
            rng = random.Random(f"{seed}/{corpus}/{split}")
            drawn = _draw(write, world, rng, count, fresh)
            files[f"{corpus}/{split}.txt"] = _lines(drawn)
    for name, make in tasks.TASKS.items():
        items = make(world, random.Random(f"{seed}/{name}"), fresh)
        files[f"zeroshot/{name}.jsonl"] = _jsonl(items)
    with whole_folder(root, owned_by=MANIFEST) as draft:
        for path, content in files.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_text(content, encoding="utf-8", newline="\n")
        return {path: sha256(draft / path) for path in sorted(files)}


def ngrams(row: str, n: int = NGRAM) -> set[str]:
    """All runs of `n` words of a text, lower case, punctuation dropped."""
    words = re.findall(r"\w+", row.lower())
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def _draw(
    write: Writer, world: World, rng: random.Random, count: int, fresh: tasks.Fresh
) -> list[str]:
    """Draw evaluation rows until `count` of them share no long run of words with training text."""
    rows: list[str] = []
    for _ in range(200 * count):
        row = write(world, rng, held_out=True)
        if row not in rows and fresh(row):
            rows.append(row)
        if len(rows) == count:
            return rows
    raise AssertionError(f"only {len(rows)} of {count} evaluation rows differ from training text")


def _lines(rows: Iterable[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def _jsonl(rows: Iterable[Mapping[str, object]]) -> str:
    return _lines(json.dumps(row, ensure_ascii=True) for row in rows)


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
