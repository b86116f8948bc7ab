"""Trials: pruning jobs of a method on tiny models, each in a process of its own."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prunebench import jobs
from prunebench.campaign.config import Model
from prunebench.campaign.parts import Calibration
from prunebench.campaign.settings import Recovery
from prunebench.campaign.specs import DataSpec
from prunebench.jobs import warm
from prunebench.plugins.description import Plugin
from prunebench.untyped import Json

COMMON = {
    "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": 256, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
GROUPED = {**COMMON, "head_dim": 8, "num_key_value_heads": 2}
MODELS: Mapping[str, Json] = {
    "gqa": {**GROUPED, "model_type": "llama"},
    "mha": {**GROUPED, "model_type": "llama", "num_key_value_heads": 4},
    "tied": {**GROUPED, "model_type": "qwen2", "tie_word_embeddings": True},
    "fused_qkv": {**GROUPED, "model_type": "phi3", "original_max_position_embeddings": 256},
    "layer_norm": {**COMMON, "model_type": "gpt_neox"},
}
"""Configurations of the models that every method is tried on; what each stands for is its name."""
SHARES = (0.1, 0.3, 0.5)
"""Of the decoder blocks' parameters, which leave."""
TOKENS, EXAMPLE = 1900, 192
"""Tuning tokens of a trial, and the most that an example has."""
CALIBRATION = Calibration(corpus=("newswire",), samples=4, length=32)
SECONDS, MEMORY_MB = 60.0, 1000.0
"""What a trial may take where method.yaml says nothing. Memory is beyond what was held before."""
GRACE_S = 30.0
"""What a trial is given beyond twice its time, for all that is not the method; then it is ended."""
SHOWN = 4000
"""Characters of a failed trial's output that are shown."""
IMPORTS = ("prunebench.jobs.trial", "prunebench.recovery.loop")


@dataclass(frozen=True)
class Trial:
    """One run of a method and what came of it. result: as of `jobs.trial`, or why there is none."""

    model: str
    share: float
    seed: int
    result: Json = field(repr=False)

    @property
    def status(self) -> str:
        """ok, failed or skipped."""
        return str(self.result["status"])

    @property
    def reason(self) -> str:
        """Why it is not ok."""
        return str(self.result["reason"])

    @property
    def seen(self) -> Json:
        """What the method did beside deciding."""
        found: Json = self.result["trial"]
        return found

    def __str__(self) -> str:
        of = f"{100 * self.share:g} %, " if self.share else ""
        return f"{self.model}, {of}seed {self.seed}"


class Bench:
    """A place to try methods in. `warmed` makes one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def run(
        self, plugin: Plugin, model: str, share: float, seed: int = 0, *, imports: bool = False
    ) -> Trial:
        """Try a method once. Of a trial that failed, the end of what it printed is shown."""
        self.count += 1
        cell = self.root / f"{self.count}"
        here = cell / "here"
        here.mkdir(parents=True)
        spec = _spec(plugin, self.root / model, MODELS[model], share, seed, imports=imports)
        out = cell / "trial.json"
        before = os.getcwd()
        os.chdir(here)  # so that what a method leaves in the working folder is seen
        log = out.with_suffix(".log")
        file = os.open(log, os.O_WRONLY | os.O_CREAT)
        try:
            jobs.run(
                "trial", spec, [], out, device="cpu", threads=1, log=file,
                timeout_s=2 * plugin.trial.get("seconds", SECONDS) + GRACE_S,
                memory_mb=int(plugin.trial.get("memory_mb", MEMORY_MB)) + 2500,
            )  # fmt: skip
        finally:
            os.chdir(before)
            os.close(file)
        trial = Trial(model, share, seed, json.loads(out.read_text(encoding="utf-8")))
        if trial.status == "failed":
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace")[-SHOWN:])
        return trial


@contextmanager
def warmed() -> Iterator[Bench]:
    """A bench with a warm process that its trials are forked from; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="prunebench-trials-") as folder:
        root = Path(folder)
        before = os.environ.get(warm.VARIABLE)
        process = warm.start(root, 1, IMPORTS)
        try:
            yield Bench(root)
        finally:
            process.kill()
            process.wait()
            os.environ.pop(warm.VARIABLE, None)
            if before is not None:
                os.environ[warm.VARIABLE] = before


def _spec(
    plugin: Plugin, place: Path, config: Json, share: float, seed: int, *, imports: bool
) -> str:
    """The job's input. Its text is random letters: no trial measures quality."""
    recovery = Recovery(
        {
            "instructions": "alpaca", "tokens": plugin.trial.get("tokens", TOKENS), "batch": 2,
            "micro_batch": 2, "length": EXAMPLE, "dropout": 0.0, "rank": 2, "targets": "auto",
            "learning_rate": 1e-3, "log_every": 1,
        }
    )  # fmt: skip
    given = {
        "model": Model(name="tiny", kind="local", source=str(place)).model_dump(),
        "data": DataSpec(source="random").model_dump(),
        "sparsity": share,
        "sparsity_of": "decoder",
        "seed": seed,
        "method": plugin.name,
        "params": plugin.params(plugin.trial.get("params", {}), where="trial.params"),
        "plugins": [str(plugin.folder.resolve())],
        "plugin_sha256": plugin.digest(),
        "calibration": CALIBRATION.model_dump(),
        "recovery": recovery.root if plugin.tunes_itself else None,
        "config": config,
        "imports": imports,
    }
    return json.dumps(given)
