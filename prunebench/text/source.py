"""Text, instructions and task files: from the hub, a local folder, the demo world, or random."""

from __future__ import annotations

import hashlib
import os
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import cut_rows, json_lines, read_text
from prunebench.untyped import Foreign, Plain

DATA_VARIABLE = "PRUNEBENCH_DATA"
PASSAGE = 2048
"""Characters of a passage of plain text: more than a training sequence of 256 tokens holds."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Corpus:
    """Where a corpus lies and how its text is cut into rows.

    file      path below a local root, with {split}
    rows      how a file becomes rows: "wikitext" (a line with its newline, blank lines empty),
              "stripped" (lines without surrounding blanks), "stories" (split at <|endoftext|>),
              "paragraphs" (blank lines part them, and their lines are joined)
    hub       (data set id, configuration, column, revision); None: not on the hub
    """

    file: str
    rows: str
    hub: tuple[str, str | None, str, str | None] | None = None


CORPORA: Mapping[str, Corpus] = {
    "wikitext2": Corpus(
        "wikitext2/{split}.txt",
        "wikitext",
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "text", None),
    ),
    "ptb": Corpus(
        "ptb/{split}.txt",
        "stripped",
        ("ptb-text-only/ptb_text_only", None, "sentence", "refs/convert/parquet"),
    ),
    "tinystories": Corpus(
        "tinystories/excerpt.txt", "stories", ("roneneldan/TinyStories", None, "text", None)
    ),
    # Books stand for the BookCorpus on which LLM-Pruner calibrates: text that is not evaluated on.
    "books": Corpus(
        "gutenberg/part-00.txt.xz",
        "paragraphs",
        ("bookcorpus/bookcorpus", "plain_text", "text", "refs/convert/parquet"),
    ),
    "encyclopedia": Corpus("encyclopedia/{split}.txt", "stripped"),
    "newswire": Corpus("newswire/{split}.txt", "stripped"),
}

INSTRUCTIONS: Mapping[str, tuple[str, str | None]] = {
    "alpaca": ("alpaca/train.jsonl", "yahma/alpaca-cleaned"),
    "lamini": ("lamini/train.jsonl", "MBZUAI/LaMini-instruction"),
    "demo": ("instructions/train.jsonl", None),
}


@dataclass(frozen=True)
class Source:
    """Where data comes from. kind: hub | local | demo | random; root: folder of local and demo.

    commits: of data sets on the hub, by their ids; the others are taken at their named revision.
    Random letters are for models with random weights, where only the number of tokens matters.
    """

    kind: str
    root: Path | None = None
    commits: Mapping[str, str] = field(default_factory=dict)

    def rows(self, corpus: str, split: str) -> list[str]:
        """Text rows of a split, as the hub's data set yields them.

        Raises Invalid when corpus, split or file do not exist or hold no text.
        """
        if corpus not in CORPORA:
            raise Invalid(f"unknown corpus {corpus!r}; known: {', '.join(CORPORA)}")
        if split not in SPLITS:
            raise Invalid(f"corpus {corpus}: unknown split {split!r}; known: {', '.join(SPLITS)}")
        if self.kind == "hub":
            return self._hub_rows(corpus, split)
        if self.kind == "random":
            return _random_texts(f"{corpus}/{split}", texts=64, length=4096)
        path = self.corpus_file(corpus, split)
        rows = cut_rows(read_text(path), CORPORA[corpus].rows)
        if not any(row.strip() for row in rows):
            raise Invalid(f"{path}: expected text, found none")
        return rows

    def mixture(self, corpora: str | Sequence[str], split: str) -> list[str]:
        """Rows of one corpus, or of several, one after another."""
        return [row for corpus in corpora_of(corpora) for row in self.rows(corpus, split)]

    def corpus_file(self, corpus: str, split: str) -> Path:
        """The file of a corpus below the root. Raises Invalid if it is not there."""
        path = self._below(CORPORA[corpus].file.format(split=split))
        if not path.is_file():
            raise Invalid(f"data: corpus {corpus!r}, split {split!r}: no such file: {path}")
        return path

    def instructions(self, name: str) -> list[dict[str, str]]:
        """Instruction records {instruction, input, output}. Raises Invalid with file and line."""
        if name not in INSTRUCTIONS:
            raise Invalid(f"unknown instructions {name!r}; known: {', '.join(INSTRUCTIONS)}")
        hub = INSTRUCTIONS[name][1]
        if self.kind == "hub":
            if hub is None:
                raise Invalid(f"instructions {name!r} are not on the hub")
            found = _hub_dataset(hub, revision=self.commits.get(hub))
            return [_instruction(row, f"{hub}[{i}]") for i, row in enumerate(found)]
        if self.kind == "random":
            return [
                {"instruction": "Go on.", "input": "", "output": text}
                for text in _random_texts(name, texts=512, length=512)
            ]
        path = self.instructions_file(name)
        return [_instruction(raw, f"{path}:{line}") for line, raw in json_lines(path)]

    def instructions_file(self, name: str) -> Path:
        """The file of instruction data below the root. Raises Invalid if it is not there."""
        path = self._below(INSTRUCTIONS[name][0])
        if not path.is_file():
            raise Invalid(f"data: instructions {name!r}: no such file: {path}")
        return path

    def passages(self, corpora: str | Sequence[str]) -> list[dict[str, str]]:
        """Training splits as tuning records without a prompt, PASSAGE characters or more each.

        Consecutive rows of a corpus are joined until they can fill a training sequence.
        """
        records: list[dict[str, str]] = []
        for corpus in corpora_of(corpora):
            held, size = [], 0
            for row in [*self.rows(corpus, "train"), None]:
                if row is not None:
                    held.append(row.strip())
                    size += len(row)
                if size >= PASSAGE or (row is None and size):
                    records.append({"instruction": "", "output": "\n".join(held).strip()})
                    held, size = [], 0
        return records

    def task_file(self, task: str) -> Path | None:
        """The JSON lines of a zero-shot task; None for the hub, where lm-eval finds them itself."""
        return None if self.kind == "hub" else self._below(f"zeroshot/{task}.jsonl")

    def digest(self, corpus: str, split: str) -> str:
        """SHA-256 over the rows of a split, the same whichever source they come from."""
        return text_digest(self.rows(corpus, split))

    def _hub_rows(self, corpus: str, split: str) -> list[str]:
        hub = CORPORA[corpus].hub
        if hub is None:
            raise Invalid(f"corpus {corpus!r} is not on the hub; use data.source: demo or local")
        name, configuration, column, revision = hub
        commit = self.commits.get(name, revision)
        rows = _hub_dataset(name, configuration, split=split, revision=commit)[column]
        return [str(row) for row in rows]

    def _below(self, relative: str) -> Path:
        if self.root is None:
            raise Invalid(f"data source {self.kind!r} needs a root folder")
        return self.root / relative


def open_source(kind: str, root: str | None, *, demo_root: Path) -> Source:
    """The Source of a campaign. Raises Invalid when a local root is neither given nor found."""
    if kind == "hub":
        return Source("hub")
    if kind == "demo":
        return Source("demo", demo_root)
    if kind == "random":
        return Source("random")
    given = root or os.environ.get(DATA_VARIABLE)
    if not given:
        raise Invalid(
            "data.source is 'local': expected data.root in the campaign file or the environment "
            f"variable {DATA_VARIABLE}, got neither"
        )
    path = Path(given).expanduser()
    if not path.is_dir():
        raise Invalid(f"data.root: no such folder: {path}")
    return Source("local", path)


def corpora_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of corpora: a campaign file may write one, or a list."""
    return (given,) if isinstance(given, str) else tuple(given)


def text_digest(rows: list[str]) -> str:
    """SHA-256 over text rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.encode("utf-8") + b"\0")
    return digest.hexdigest()


def _random_texts(name: str, *, texts: int, length: int) -> list[str]:
    """Random letters and blanks, the same at every call; `length` characters, so as many bytes.

    No more than is needed, for letters without sense are slow to tokenize.
    """
    draw = random.Random(name)
    return ["".join(draw.choices(string.ascii_lowercase + "  ", k=length)) for _ in range(texts)]


def _instruction(raw: Plain, where: str) -> dict[str, str]:
    if not isinstance(raw, Mapping):
        raise Invalid(f"{where}: expected an object, got {type(raw).__name__}")
    aliases = {
        "output": ("output", "response"),
        "instruction": ("instruction",),
        "input": ("input",),
    }
    record = {}
    for key, names in aliases.items():
        value = next((raw[name] for name in names if name in raw), "" if key == "input" else None)
        if not isinstance(value, str):
            raise Invalid(f"{where}: expected a text {key!r}, got {value!r}")
        record[key] = value
    return record


def _hub_dataset(
    name: str,
    configuration: str | None = None,
    *,
    split: str = "train",
    revision: str | None = None,
) -> Foreign:
    from datasets import load_dataset

    try:
        return load_dataset(name, configuration, split=split, revision=revision)
    except Exception as error:  # datasets raises many kinds; the user needs one line
        first = next(iter(str(error).splitlines()), repr(error))
        raise Invalid(
            f"data source 'hub': data set {name!r}, split {split!r}: cannot be loaded ({first}); "
            f"without network use data.source: local with a folder of files ({DATA_VARIABLE})"
        ) from None
