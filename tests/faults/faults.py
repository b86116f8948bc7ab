"""The faults that are tried: what is done to a finished campaign, and what it takes to mend it.

Each starts from the folder of an undisturbed run. `cure` says what ends with its digits again:

    nothing  not even a call: nothing is run again
    call     the same call
    retry    the same call fails and says why; `prunebench retry`, and the same call
    any      one of these: which one depends on how far the struck call came
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench.record import stages
from prunebench.results.tables import report_text

ROOT = Path("results/toy")
CELLS = ROOT / "cells" / "tiny"
DENSE, RANDOM = CELLS / "dense/0/seed0", CELLS / "random/0.3/seed0"
TUNED, TOY = CELLS / "random+lora/0.3/seed0", CELLS / "toy/0.3/seed0"
RESULTS = {
    "prune.json": RANDOM / "prune.json",
    "recover.json": TUNED / "recover.json",
    "evaluate.json": TUNED / "evaluate.json",
    "leak.json": ROOT / "leak.json",
}
GARBAGE: dict[str, bytes] = {
    "{}": b"{}",
    "[]": b"[]",
    "null": b"null",
    "empty": b"",
    "binary": bytes(range(256)),
    "NaN": b'{"status": "ok", "reason": null, "model": NaN}',
    "a lone surrogate": b'{"status": "failed", "reason": "\\udc80"}',
    "keys missing": b'{"status": "ok", "reason": null}',
}


@dataclass(frozen=True)
class Fault:
    """A fault. `ran`: rules of which a job must run in the call that mends it, if that is sure.

    small_disk  whether it needs a file system of its own
    """

    kind: str
    name: str
    do: Callable[[], Any]
    cure: str
    ran: frozenset[str] | None = None
    small_disk: bool = False

    @property
    def id(self) -> str:
        """Its name for pytest."""
        return f"{self.kind}: {self.name}"


def faults() -> list[Fault]:
    """All of them."""
    makers = (
        interrupted, failed_jobs, garbled, cut, edited, swapped, damaged_models, lost_models,
        records, views, campaign_files, copies, leftovers,
    )  # fmt: skip
    return [fault for maker in makers for fault in maker()]


def interrupted() -> Iterator[Fault]:
    """A kill between the steps of a cell: what it had not written is not there."""
    kind = "killed"
    steps = {
        "while pruning": (RANDOM, TUNED),
        "while tuning": (TUNED,),
        "while a row of one seed is pruned": (TOY,),
        "while the dense row is evaluated": (DENSE,),
    }
    for name, folders in steps.items():
        yield Fault(kind, name, lambda f=folders: [*map(shutil.rmtree, f)], "call")
    yield Fault(
        kind,
        "after pruning, before evaluation",
        lambda: gone(TOY / "evaluate.json", TOY / "record.json"),
        "call",
        frozenset({"evaluate", "leaderboard"}),
    )
    yield Fault(
        kind,
        "after tuning, before evaluation",
        lambda: gone(TUNED / "evaluate.json", TUNED / "record.json"),
        "call",
        frozenset({"evaluate", "leaderboard"}),
    )
    yield Fault(kind, "before the check of leaks", lambda: gone(ROOT / "leak.json"), "call")
    yield Fault(
        kind,
        "before the tables",
        lambda: gone(ROOT / "leaderboard.md", ROOT / "complete", ROOT / "views.json"),
        "call",
        frozenset({"leaderboard"}),
    )
    yield Fault(kind, "before anything", lambda: shutil.rmtree(ROOT), "call")


def failed_jobs() -> Iterator[Fault]:
    """A job ended without its numbers: it is a failed row until it is cleared."""
    reasons = {
        "out of memory": "out of memory (peak 100 MiB)",
        "killed by the system": "the job was killed by SIGKILL",
        "out of time": "time limit of 1 s exceeded",
        "disk full": "disk full: 10 MB are needed in results, 3 MB are free",
        "an error of the method": "ValueError: no",
    }
    for name, path in RESULTS.items():
        for what, reason in reasons.items():
            yield Fault(
                "failed",
                f"{name}: {what}",
                lambda p=path, r=reason: replace(p, status="failed", reason=r),
                "retry",
            )


def garbled() -> Iterator[Fault]:
    """A result that is none any more."""
    for name, path in RESULTS.items():
        for what, content in GARBAGE.items():
            yield Fault(
                "garbled",
                f"{name} holds {what}",
                lambda p=path, c=content: p.write_bytes(c),
                "call",
            )


def cut() -> Iterator[Fault]:
    """A result of which the second half is lost."""
    for name, path in RESULTS.items():
        yield Fault("cut", name, lambda p=path: halve(p), "call")


def edited() -> Iterator[Fault]:
    """A number that somebody changed."""
    places = {
        "prune.json": "sparsity.achieved",
        "recover.json": "model.parameters",
        "evaluate.json": "perplexity.ppl/toy:newswire-test@32.value",
        "leak.json": "calibration.sets.newswire-test.share",
    }
    for name, key in places.items():
        path = RESULTS[name]
        yield Fault("edited", f"{key} in {name}", lambda p=path, k=key: edit(p, k, 0.123), "call")


def swapped() -> Iterator[Fault]:
    """A whole file of another cell."""
    pairs = {
        "evaluate.json of another row": (TOY / "evaluate.json", TUNED / "evaluate.json"),
        "evaluate.json of the untuned row": (RANDOM / "evaluate.json", TUNED / "evaluate.json"),
        "prune.json of another row": (TOY / "prune.json", RANDOM / "prune.json"),
        "prune.json of the dense row": (DENSE / "prune.json", TOY / "prune.json"),
        "recover.json that is a pruning": (RANDOM / "prune.json", TUNED / "recover.json"),
        "record.json of another row": (TOY / "record.json", RANDOM / "record.json"),
    }
    for name, (source, target) in pairs.items():
        yield Fault("swapped", name, lambda s=source, t=target: shutil.copy(s, t), "call")


def damaged_models() -> Iterator[Fault]:
    """A saved model that is not what was saved, when a job is to read it."""
    for name, cell in (("pruned", TOY), ("tuned", TUNED)):
        for file in ("model.safetensors", "config.json", "tokenizer.json", "prunebench.json"):
            yield Fault(
                "damaged",
                f"{file} of a {name} model: a bit flipped",
                lambda c=cell, f=file: (unevaluated(c), flip(c / "model" / f)),
                "retry",
            )
    yield Fault(
        "damaged",
        "weights of a pruned model: a bit flipped before tuning",
        lambda: (unevaluated(TUNED), gone(TUNED / "recover.json"), flip(weights(RANDOM))),
        "retry",
    )
    yield Fault(
        "damaged",
        "weights of another cell in a model's place",
        lambda: (unevaluated(TOY), shutil.copy(weights(RANDOM), weights(TOY))),
        "call",
    )


def lost_models() -> Iterator[Fault]:
    """A saved model that is gone: made again where a job needs it, and only there."""
    yield Fault("lost", "the models of finished cells", without_models, "nothing")
    yield Fault(
        "lost",
        "all models, and one cell is unfinished",
        lambda: (without_models(), unevaluated(TOY)),
        "call",
        frozenset({"evaluate", "leaderboard"}),
    )
    yield Fault(
        "lost",
        "a model and its decision, and its cell is unfinished",
        lambda: (without_models(), unevaluated(TOY), gone(TOY / "decision.json.gz")),
        "call",
        frozenset({"prune", "evaluate", "leaderboard"}),
    )
    for file in ("model.safetensors", "config.json"):
        yield Fault(
            "lost",
            f"{file}, before evaluation",
            lambda f=file: (unevaluated(TOY), gone(TOY / "model" / f)),
            "call",
        )
    yield Fault("lost", "result of a finished cell", lambda: gone(TOY / "prune.json"), "nothing")
    yield Fault(
        "lost",
        "result of a finished cell, and the tables",
        lambda: gone(TOY / "prune.json", RANDOM / "prune.json", ROOT / "leaderboard.md"),
        "call",
        frozenset({"leaderboard"}),
    )


def records() -> Iterator[Fault]:
    """A record that is not what was written; no job runs for it."""
    tables = frozenset({"leaderboard"})
    record = TOY / "record.json"
    yield Fault("record", "deleted", lambda: gone(record), "call", tables)
    yield Fault("record", "cut", lambda: halve(record), "call", tables)
    changed = ("sparsity.achieved", 0.1)
    yield Fault("record", "a number edited", lambda: edit(record, *changed), "call", tables)
    for what in ("{}", "empty", "binary", "NaN"):
        yield Fault(
            "record",
            f"holds {what}",
            lambda c=GARBAGE[what]: record.write_bytes(c),
            "call",
            tables,
        )
    yield Fault("record", "of another campaign", of_another_campaign, "call", tables)


def views() -> Iterator[Fault]:
    """Tables and page."""
    tables = frozenset({"leaderboard"})
    for name in ("leaderboard.md", "index.html", "cells.csv", "failures.md", "leaderboard.parquet"):
        yield Fault("view", f"{name} deleted", lambda n=name: gone(ROOT / n), "call", tables)
        yield Fault("view", f"{name} cut", lambda n=name: halve(ROOT / n), "call", tables)
    yield Fault("view", "plots deleted", lambda: shutil.rmtree(ROOT / "plots"), "call", tables)
    yield Fault("view", "views.json deleted", lambda: gone(ROOT / "views.json"), "call", tables)
    yield Fault("view", "views.json garbled", lambda: halve(ROOT / "views.json"), "call", tables)
    yield Fault(
        "view",
        "`prunebench report` on an unfinished campaign",
        lambda: (unevaluated(TOY), gone(TOY / "prune.json"), report_text(ROOT)),
        "call",
    )


def campaign_files() -> Iterator[Fault]:
    """What a run keeps of itself."""
    tables = frozenset({"leaderboard"})
    kept = ROOT / "campaign.yaml"
    yield Fault("kept", "campaign.yaml deleted", lambda: gone(kept), "call", tables)
    yield Fault("kept", "campaign.yaml empty", lambda: kept.write_text(""), "call", tables)
    yield Fault("kept", "campaign.yaml binary", lambda: kept.write_bytes(b"\0\xff"), "call", tables)
    yield Fault("kept", "`complete` deleted", lambda: gone(ROOT / "complete"), "call")


def copies() -> Iterator[Fault]:
    """The folder came here by other means than by running."""
    yield Fault("moved", "all times equal", lambda: touch(lambda path: 1.0), "nothing")
    yield Fault("moved", "times in the order of names", lambda: touch(by_name(1)), "nothing")
    yield Fault("moved", "times against the order of names", lambda: touch(by_name(-1)), "nothing")
    yield Fault("moved", "times in the future", lambda: touch(lambda path: 4e9), "nothing")
    yield Fault("moved", "copied, and the original removed", copied, "nothing")
    yield Fault(
        "moved",
        "as git keeps it: without models, page and plots",
        lambda: (without_models(), gone(ROOT / "index.html"), shutil.rmtree(ROOT / "plots")),
        "call",
        frozenset({"leaderboard"}),
    )


def leftovers() -> Iterator[Fault]:
    """What dead processes leave."""
    yield Fault("left", "half a model beside the model", lambda: half_model(TOY), "nothing")
    yield Fault("left", "an empty work folder", lambda: (TOY / "prune.work").mkdir(), "nothing")
    yield Fault(
        "left",
        "a tuning's work folder with no whole checkpoint",
        lambda: (unevaluated(TUNED), gone(TUNED / "recover.json"), broken_checkpoint(TUNED)),
        "call",
    )


def weights(cell: Path) -> Path:
    """The weights of a cell's model."""
    return cell / "model" / "model.safetensors"


def gone(*paths: Path) -> None:
    """Delete files."""
    for path in paths:
        path.unlink()


def unevaluated(cell: Path) -> None:
    """As a kill before evaluation leaves it."""
    gone(cell / "evaluate.json", cell / "record.json")


def halve(path: Path) -> None:
    """Cut a file in the middle."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    """Flip the lowest bit of a byte in the second half of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


def replace(path: Path, **values: Any) -> None:
    """Write a result as a job would that ended so."""
    result = json.loads(path.read_text())
    kept = {key: result[key] for key in ("spec", "read") if key in result}
    stages.write(path, {**kept, **values})


def edit(path: Path, key: str, value: float) -> None:
    """Change one number of a JSON file."""
    content = json.loads(path.read_text())
    inner = content
    *parents, last = key.split(".")
    for parent in parents:
        inner = inner[parent]
    assert inner[last] != value
    inner[last] = value
    path.write_text(json.dumps(content))


def without_models() -> None:
    """Remove every saved model, as a copy without large files has none."""
    found = list(ROOT.glob("cells/**/model"))
    assert found
    for folder in found:
        shutil.rmtree(folder)


def of_another_campaign() -> None:
    """A valid record of the same cell under another campaign's name."""
    from prunebench.record import store

    record = store.as_mapping(store.read(TOY / "record.json"))
    record["cell"] = {**record["cell"], "campaign": "other"}
    store.write(TOY / "record.json", record)


def touch(time: Callable[[Path], float]) -> None:
    """Give every file of the results a time."""
    for path in ROOT.rglob("*"):
        os.utime(path, (time(path), time(path)))


def by_name(sign: int) -> Callable[[Path], float]:
    """Times that follow the alphabet, or go against it."""
    order = {path: i for i, path in enumerate(sorted(ROOT.rglob("*")))}
    return lambda path: 1e9 + sign * order[path]


def copied() -> None:
    """Copy file by file to other inodes with new times."""
    shutil.copytree(ROOT, "copy", copy_function=shutil.copyfile)
    shutil.rmtree(ROOT)
    os.rename("copy", ROOT)


def half_model(cell: Path) -> None:
    """What a process leaves that was killed while it saved."""
    draft = cell / ".model.999999999-0123abcd.partial"
    draft.mkdir()
    (draft / "model.safetensors").write_bytes(b"half")


def broken_checkpoint(cell: Path) -> None:
    """A checkpoint whose seal is not whole."""
    folder = cell / "recover.work" / "checkpoint-1"
    folder.mkdir(parents=True)
    (folder / "complete.json").write_text("{")
