"""Faults that strike a process at work: signals, limits, disks, plugins, inputs, two at once."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fault_campaign
from faults import ROOT, TOY, TUNED, Fault, flip, gone, halve, unevaluated
from injected import begun, called, ended, fill, limited, struck

from prunebench import running
from prunebench.errors import Failure, Invalid
from prunebench.results.repair import repair

METHOD, FILLER = Path("plugins/toy/method.py"), Path("filler")
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGABRT", "SIGSEGV", "SIGBUS", "SIGPIPE")
STEPS = {
    "model": "a pruned model",
    "prune.json": "a pruning's result",
    "evaluate.json": "an evaluation's result",
    "record.json": "a record",
    "leaderboard.md": "the tables",
    "index.html": "the page",
    "views.json": "the list of views",
}
METHODS = {
    "raises": "raise ValueError('no')",
    "raises a lone surrogate": "raise ValueError('\\udc80')",
    "returns nothing": "return None",
    "returns what is no decision": "return {'layers.0.neurons': [1, 2]}",
    "ends the process": "import os; os._exit(3)",
    "kills its process": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "exits": "raise SystemExit(2)",
    "recurses for ever": "return prune(model, ctx)",
    "makes weights NaN": "next(iter(model.parameters())).data.fill_(float('nan')); return None",
    "notes what has no form": "ctx.note(what=object()); return None",
    "deletes its folder": "import shutil; shutil.rmtree('results/toy/cells/tiny/toy')",
}


def faults() -> list[Fault]:
    """All of them."""
    makers = (killed, signals, tuning, limits, full_disks, plugins, inputs, together)
    return [fault for maker in makers for fault in maker()]


def killed() -> Iterator[Fault]:
    """SIGKILL as a file gets its name: the moment before and the moment after."""
    for name, what in STEPS.items():
        for when in ("before", "after"):
            yield Fault(
                "SIGKILL",
                f"{when} {what} is there",
                lambda n=name, w=when: (unpruned(), struck(signal.SIGKILL, n, after=w == "after")),
                "call",
            )


def signals() -> Iterator[Fault]:
    """Other signals, in the middle of a cell."""
    for name in SIGNALS:
        sign = getattr(signal, name)
        if name == "SIGPIPE":
            continue  # Python does not die of it
        yield Fault(
            "signal",
            f"{name} while a result is written",
            lambda s=sign: (unpruned(), struck(s, "prune.json")),
            "call",
        )


def tuning() -> Iterator[Fault]:
    """A tuning that was killed, and what became of its checkpoint before the same call."""
    damages: dict[str, Callable[[Path], Any]] = {
        "whole": lambda folder: None,
        "adapter_model.safetensors: a bit flipped": on("adapter_model.safetensors", flip),
        "optimizer.pt: a bit flipped": on("optimizer.pt", flip),
        "scheduler.pt: a bit flipped": on("scheduler.pt", flip),
        "trainer_state.json cut": on("trainer_state.json", halve),
        "rng_state.pth deleted": on("rng_state.pth", gone),
        "its seal cut": on("complete.json", halve),
        "its seal deleted": on("complete.json", gone),
        "its seal holds {}": on("complete.json", lambda path: path.write_text("{}")),
        "empty": lambda folder: [gone(path) for path in folder.iterdir()],
    }
    for what, damage in damages.items():
        yield Fault("checkpoint", what, lambda d=damage: d(killed_tuning()), "call")
    yield Fault("SIGKILL", "as a checkpoint is sealed", killed_sealing, "call")
    yield Fault(
        "SIGKILL",
        "as a tuned model is saved",
        lambda: (untuned(), struck(signal.SIGKILL, "model")),
        "call",
    )


def limits() -> Iterator[Fault]:
    """Limits of the system, met by a job and by the tables."""
    for name, which, most in (
        ("files of 20 kB at most", resource.RLIMIT_FSIZE, 20_000),
        ("files of 200 bytes at most", resource.RLIMIT_FSIZE, 200),
        ("no file at all", resource.RLIMIT_FSIZE, 0),
        ("8 open files", resource.RLIMIT_NOFILE, 8),
        ("no more memory", resource.RLIMIT_AS, 2**20),
    ):
        cure = "retry" if most == 20_000 or which == resource.RLIMIT_AS else "call"
        yield Fault(
            "limit", name, lambda w=which, m=most: (unpruned(), limited(w, m)), cure
        )  # fmt: skip
    yield Fault(
        "limit",
        "no processor time left",
        lambda: (unpruned(), limited(resource.RLIMIT_CPU, 1)),
        "any",
    )


def full_disks() -> Iterator[Fault]:
    """A file system with so much room, which is freed before the same call."""
    for room in (0, 4096, 20_000, 100_000):
        yield Fault(
            "full disk",
            f"{room:,} bytes are free for a pruned model",
            lambda r=room: (unpruned(), without_room(r)),
            "any",
            small_disk=True,
        )
    yield Fault(
        "full disk",
        "nothing is free for a tuning's checkpoints",
        lambda: (untuned(), without_room(60_000)),
        "any",
        small_disk=True,
    )
    yield Fault(
        "full disk",
        "nothing is free for tables",
        lambda: (gone(ROOT / "leaderboard.md", ROOT / "views.json"), without_room(0)),
        "call",
        small_disk=True,
    )


def plugins() -> Iterator[Fault]:
    """A method that does this; it is mended before the same call."""
    for what, code in METHODS.items():
        yield Fault("plugin", what, lambda c=code: with_method(c), "call")
    yield Fault("plugin", "its code cut", lambda: with_method(None), "call")


def inputs() -> Iterator[Fault]:
    """What jobs read is damaged during a call, and whole again at the next."""
    corpus, model = Path("data/newswire/test.txt"), Path("tiny")
    damages: dict[str, tuple[Path, Callable[[Path], Any]]] = {
        "a corpus flipped": (corpus, flip),
        "a corpus cut": (corpus, halve),
        "a corpus empty": (corpus, lambda path: path.write_bytes(b"")),
        "a corpus binary": (corpus, lambda path: path.write_bytes(bytes(range(256)))),
        "a corpus deleted": (corpus, gone),
        "the model's weights flipped": (model / "model.safetensors", flip),
        "the model's weights cut": (model / "model.safetensors", halve),
        "the model's config empty": (model / "config.json", lambda p: p.write_bytes(b"")),
        "the model's tokenizer cut": (model / "tokenizer.json", halve),
        "the campaign cut": (Path("campaign.yaml"), halve),
    }
    for what, (path, damage) in damages.items():
        yield Fault("input", what, lambda p=path, d=damage: damaged(p, d), "any")


def together() -> Iterator[Fault]:
    """Two processes in one folder."""
    yield Fault("two at once", "a second call while one runs is refused", refused, "call")
    yield Fault("two at once", "both, where nothing can be locked", both, "any")
    yield Fault("two at once", "`prunebench retry` while one runs is refused", no_retry, "call")
    yield Fault("lock", "that of a killed run", lambda: stale_lock("cells/x/prune.json"), "call")
    yield Fault("lock", "garbled .running", lambda: garbled_lock(b"\0\xff{"), "call")
    yield Fault("lock", "empty .running", lambda: garbled_lock(b""), "call")


def unpruned() -> None:
    """As before a cell has begun."""
    shutil.rmtree(TOY)


def untuned() -> None:
    """As before a tuning has begun."""
    shutil.rmtree(TUNED)


def on(name: str, damage: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """The damage to a file of a folder."""
    return lambda folder: damage(folder / name)


def killed_tuning() -> Path:
    """Kill a tuning after its first checkpoint; the checkpoint's folder."""
    untuned()
    struck(signal.SIGKILL, "complete.json", after=True)
    [folder] = TUNED.rglob("checkpoint-*")
    return folder


def killed_sealing() -> None:
    """Kill a tuning before its first checkpoint is whole."""
    untuned()
    struck(signal.SIGKILL, "complete.json")


def without_room(room: int) -> None:
    """A call on a disk with so much room."""
    fill(FILLER, room)
    called()
    gone(FILLER)


def with_method(code: str | None) -> None:
    """A call with another method."""
    right = METHOD.read_text()
    wrong = right[: len(right) // 2] + "(" if code is None else f"def prune(model, ctx): {code}\n"
    METHOD.write_text(wrong)
    called()
    METHOD.write_text(right)
    assert METHOD.read_text() == right


def damaged(path: Path, damage: Callable[[Path], Any]) -> None:
    """A call with another file."""
    unpruned()
    right = path.read_bytes()
    damage(path)
    called()
    path.write_bytes(right)


def refused() -> None:
    """While a process runs the campaign, another one cannot."""
    unevaluated(TOY)
    with at_work():
        try:
            running.hold(ROOT)
        except Failure as error:
            assert "is running this campaign" in str(error)
        else:
            raise AssertionError("a second run was let in")


def no_retry() -> None:
    """Nothing is cleared under a run."""
    unevaluated(TOY)
    with at_work():
        try:
            repair(ROOT, all_corrupt=True)
        except Invalid as error:
            assert "a run is at work there" in str(error)
        else:
            raise AssertionError("results were cleared under a run")


def both() -> None:
    """Two whole calls at the same time."""
    unpruned()
    first, second = (begun(fault_campaign.call) for _ in range(2))
    ended(first), ended(second)


def stale_lock(name: str) -> None:
    """A killed run leaves Snakemake's lock; the next call takes it away."""
    unevaluated(TOY)
    locks = Path(".snakemake/locks")
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text(f"{ROOT}/{name}\n")
    with at_work():
        assert running.clear_stale(locks, ROOT) == [], "the lock of a run was taken away"
    assert running.clear_stale(locks, ROOT) == [locks / "0.output.lock"]


def garbled_lock(content: bytes) -> None:
    """The file that says who runs a campaign holds this."""
    unevaluated(TOY)
    (ROOT / running.NAME).write_bytes(content)
    assert running.is_running(ROOT) is False


class at_work:
    """A process that runs the campaign, and is killed at the end."""

    def __enter__(self) -> None:
        here, there = os.pipe()

        def run() -> None:
            running.hold(ROOT)
            os.write(there, b"!")
            signal.pause()

        self.child = begun(run)
        os.read(here, 1)

    def __exit__(self, *_: object) -> None:
        os.kill(self.child, signal.SIGKILL)
        assert ended(self.child) == -signal.SIGKILL
