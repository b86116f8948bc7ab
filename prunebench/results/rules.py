"""The rules of a results folder: what is looked at, in one line each.

level  error: a number may be wrong, or cannot be traced; notice: what a reader should know
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from prunebench.campaign.config import Campaign, Cell
from prunebench.campaign.paths import CellPaths
from prunebench.errors import Invalid
from prunebench.record import digests, stage_forms, stages, store
from prunebench.record.form import Record
from prunebench.record.parts import there
from prunebench.results import decided, written
from prunebench.results.gather import part_digest
from prunebench.results.repair import results_in
from prunebench.untyped import Json
from prunebench.whole import left_behind

Finding = tuple[Path, str]


@dataclass(frozen=True)
class Folder:
    """A results folder as the rules see it: each file is read once."""

    campaign: Campaign

    @property
    def cells(self) -> list[Cell]:
        """All cells, single steps among them."""
        return [*self.campaign.cells, *self.campaign.step_cells]

    def own(self, cell: Cell) -> CellPaths:
        """The files of a cell."""
        return self.campaign.out.cell(cell)

    @cached_property
    def records(self) -> dict[Cell, Record | str]:
        """Each cell's record, or why it has none."""
        return {cell: self._record(self.own(cell).record) for cell in self.cells}

    @cached_property
    def results(self) -> dict[Path, Json | str]:
        """Each job's result that is there, or why it is none."""
        return {path: _result(path) for path in results_in(self.campaign.out)}

    def whole(self) -> Iterator[tuple[Cell, Record]]:
        """The records that can be read."""
        for cell, record in self.records.items():
            if isinstance(record, Record):
                yield cell, record

    def _record(self, path: Path) -> Record | str:
        try:
            return store.read(path)
        except Invalid as error:
            return str(error).removeprefix(f"{path}: ")


@dataclass(frozen=True)
class Rule:
    """One rule. `find` yields a file and what is wrong with it.

    of_jobs  whether it looks at results of jobs, which a folder of records alone has not
    """

    name: str
    says: str
    level: Literal["error", "notice"]
    find: Callable[[Folder], Iterator[Finding]]
    of_jobs: bool = False


def counts(folder: Folder) -> Iterator[Finding]:
    """A record for each cell."""
    for cell in folder.cells:
        if not folder.own(cell).record.exists():
            yield folder.own(cell).record, "is missing"


def schema(folder: Folder) -> Iterator[Finding]:
    """Records in their form, with their checksum."""
    for cell, record in folder.records.items():
        path = folder.own(cell).record
        if isinstance(record, str) and path.exists():
            yield path, record


def place(folder: Folder) -> Iterator[Finding]:
    """Each record lies where its cell belongs."""
    for cell, record in folder.whole():
        own = record.cell
        said = Cell(own.model, own.label, own.sparsity, own.seed)
        if (own.campaign, said) != (folder.campaign.name, cell):
            yield folder.own(cell).record, f"is of {own.campaign}: {said.path}"


def results(folder: Folder) -> Iterator[Finding]:
    """Results in their form, with their checksum."""
    for path, result in folder.results.items():
        if isinstance(result, str):
            yield path, result


def products(folder: Folder) -> Iterator[Finding]:
    """Files that jobs wrote hold what they wrote."""
    for path, result in folder.results.items():
        if isinstance(result, dict):
            made = {
                name: digest
                for name, digest in result.get("written", {}).items()
                if (path.parent / name).exists()
            }
            for name in digests.changed(path.parent, made):
                yield path.parent / name, f"is not what the job of {path.name} wrote"


def links(folder: Folder) -> Iterator[Finding]:
    """Each result rests on the results that lie there."""
    by_place = {stages.place(path): result for path, result in folder.results.items()}
    for path, result in folder.results.items():
        for name, digest in (result.get("read", {}) if isinstance(result, dict) else {}).items():
            before = by_place.get(name)
            if isinstance(before, dict) and digest and stages.product(before) != digest:
                yield path, f"rests on another {name} than the one that lies there"


def chain(folder: Folder) -> Iterator[Finding]:
    """Each record is made of the results that lie there."""
    for cell, record in folder.whole():
        for name, path in _made_of(folder, cell):
            result = folder.results.get(path)
            if record.chain is None or name not in record.chain or not isinstance(result, dict):
                continue
            now = part_digest(result) if name == "leak" else stages.product(result)
            if now != record.chain[name]:
                yield folder.own(cell).record, f"was made of another {path.name}"


def traceable(folder: Folder) -> Iterator[Finding]:
    """Records say what they were made of."""
    for cell, record in folder.whole():
        if record.chain is None:
            yield folder.own(cell).record, "not checked: it was made before records kept digests"


def original(folder: Folder) -> Iterator[Finding]:
    """All cells of a model were made from the same weights."""
    first: dict[str, tuple[str, Path]] = {}
    for cell, record in folder.whole():
        digest = record.model.original_weights_sha256 if record.model else None
        path = folder.own(cell).record
        if digest and first.setdefault(cell.model, (digest, path))[0] != digest:
            yield path, f"made from other weights than {first[cell.model][1]}"


def text(folder: Folder) -> Iterator[Finding]:
    """A perplexity column was measured on one text, under one protocol."""
    first: dict[str, tuple[tuple[object, ...], Path]] = {}
    for cell, record in folder.whole():
        for key, part in (there(record.perplexity) or {}).items():
            if (found := there(part)) is None:
                continue
            path = folder.own(cell).record
            said = (found.data_sha256, found.length, found.mode, found.limit, found.split)
            if first.setdefault(f"{cell.model} {key}", (said, path))[0] != said:
                yield path, f"{key}: other text or protocol than {first[f'{cell.model} {key}'][1]}"


def tasks(folder: Folder) -> Iterator[Finding]:
    """Each task was asked in one version, with the same prompts and as many items."""
    first: dict[str, tuple[tuple[object, ...], Path]] = {}
    for cell, record in folder.whole():
        for suite in (there(record.zeroshot), there(record.generation)):
            for name, part in (suite.tasks if suite else {}).items():
                if (found := there(part)) is None:
                    continue
                path, key = folder.own(cell).record, f"{cell.model} {name}"
                said = (found.hash, str(found.version), found.items, found.shots, found.metric)
                if first.setdefault(key, (said, path))[0] != said:
                    yield path, f"{name}: other items, prompts or version than {first[key][1]}"


def verified(folder: Folder) -> Iterator[Finding]:
    """Every cut model was proved equal to the masked one."""
    for cell, record in folder.whole():
        if (verify := there(record.verify)) is not None and not verify.passed:
            yield folder.own(cell).record, "the sliced model differs from the masked one"


def decisions(folder: Folder) -> Iterator[Finding]:
    """Decisions are there and lead to the weights that were measured."""
    for cell, record in folder.whole():
        yield from decided.faults(folder.own(cell), record)


def deltas(folder: Folder) -> Iterator[Finding]:
    """Changed weights lie beside their decisions."""
    for cell, record in folder.whole():
        yield from decided.without_delta(folder.own(cell), record)


def code(folder: Folder) -> Iterator[Finding]:
    """All cells were made by one version of the library."""
    made = sorted(
        {record.provenance.git_commit or "no commit" for _, record in folder.whole()}
        | {"uncommitted changes" for _, r in folder.whole() if r.provenance.git_dirty}
    )
    if len(made) > 1:
        short = ", ".join(name if " " in name else name[:12] for name in made)
        yield folder.campaign.out.cells, f"made by several versions of the code: {short}"


def packages(folder: Folder) -> Iterator[Finding]:
    """All cells were made with the same packages."""
    seen: dict[str, set[str]] = {}
    for _, record in folder.whole():
        for name, version in record.provenance.packages.items():
            seen.setdefault(name, set()).add(str(version))
    for name, versions in sorted(seen.items()):
        if len(versions) > 1:
            yield folder.campaign.out.cells, f"{name}: {', '.join(sorted(versions))}"


def views(folder: Folder) -> Iterator[Finding]:
    """Tables and page are those that were written from these records."""
    out = folder.campaign.out
    known = written.read(out)
    there_now = {name: d for name, d in known["views"].items() if (out.root / name).exists()}
    for name in digests.changed(out.root, there_now):
        yield out.root / name, "is not what was written"
    for cell in folder.cells if known["records"] else ():
        path = folder.own(cell).record
        if path.exists() and known["records"].get(cell.path) != digests.of_file(path):
            yield path, "is not the record that the tables show"


def strangers(folder: Folder) -> Iterator[Finding]:
    """No records but those of the campaign's cells."""
    own = {folder.own(cell).record for cell in folder.cells}
    for path in sorted(folder.campaign.out.cells.glob("*/*/*/*/record.json")):
        if path not in own:
            yield path, "is of no cell of the campaign; the tables do not show it"


def leftovers(folder: Folder) -> Iterator[Finding]:
    """Nothing half-written."""
    for path in left_behind(folder.campaign.out.root):
        yield path, "left by a process that is gone; `prunebench retry` removes it"


RULES = (
    Rule("counts", "each cell has a record", "error", counts),
    Rule("schema", "records have their form and their checksum", "error", schema),
    Rule("place", "records lie where their cells belong", "error", place),
    Rule("results", "results of jobs have their form and their checksum", "error", results, True),
    Rule("products", "models and items are what jobs wrote", "error", products, True),
    Rule("links", "results rest on the results that lie there", "error", links, True),
    Rule("chain", "records are made of the results that lie there", "error", chain, True),
    Rule("original", "all cells of a model were made from the same weights", "error", original),
    Rule("text", "a perplexity column has one text and one protocol", "error", text),
    Rule("tasks", "a task has the same items, prompts and version everywhere", "error", tasks),
    Rule("verified", "cut models were proved equal to masked ones", "error", verified),
    Rule("decisions", "decisions lead to the weights that were measured", "error", decisions),
    Rule("views", "tables and page are those of these records", "error", views),
    Rule("traceable", "records say what they were made of", "notice", traceable),
    Rule("deltas", "weights that were changed lie beside their decisions", "notice", deltas),
    Rule("code", "all cells were made by one version of the code", "notice", code),
    Rule("packages", "all cells were made with the same packages", "notice", packages),
    Rule("strangers", "there are no records of other cells", "notice", strangers),
    Rule("leftovers", "nothing half-written lies there", "notice", leftovers),
)


def _made_of(folder: Folder, cell: Cell) -> Iterator[tuple[str, Path]]:
    own, out = folder.own(cell), folder.campaign.out
    if cell in folder.campaign.step_cells:
        yield "step", own.step
        return
    yield "prune", out.cell(folder.campaign.pruned(cell)).prune
    yield "recover", own.recover
    yield "evaluate", own.evaluate
    yield "leak", out.leak


def _result(path: Path) -> Json | str:
    try:
        return stage_forms.read(path)
    except Invalid as error:
        return str(error).removeprefix(f"{path}: ")
