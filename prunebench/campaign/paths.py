"""Every file and folder of a campaign, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunebench.campaign.config import Cell

VIEWS = (
    "index.html", "leaderboard.md", "leaderboard.csv", "leaderboard.parquet", "cells.csv",
    "paper_vs_measured.md", "paper_vs_measured.csv", "failures.md",
)  # fmt: skip
"""What the leaderboard writes, beside `plots`."""


@dataclass(frozen=True)
class CellPaths:
    """The files of one cell, or of a row that several cells share. `folder` may hold wildcards."""

    folder: Path

    @property
    def prune(self) -> Path:
        """Result of the pruning job."""
        return self.folder / "prune.json"

    @property
    def recover(self) -> Path:
        """Result of the recovery job."""
        return self.folder / "recover.json"

    @property
    def evaluate(self) -> Path:
        """Result of the evaluation job."""
        return self.folder / "evaluate.json"

    @property
    def step(self) -> Path:
        """Result of the job that measures a single step."""
        return self.folder / "step.json"

    @property
    def record(self) -> Path:
        """Everything that is known of the cell."""
        return self.folder / "record.json"

    @property
    def items(self) -> Path:
        """Outcome of every item of the zero-shot tasks."""
        return self.folder / "items.json.gz"

    @property
    def generation_items(self) -> Path:
        """The same of the suite whose answers are generated."""
        return self.folder / "generation-items.json.gz"

    @property
    def model(self) -> Path:
        """The saved model of the cell's last job."""
        return self.folder / "model"

    @property
    def decision(self) -> Path:
        """What is kept, where no model is saved."""
        return self.folder / "decision.json"

    @property
    def decision_file(self) -> Path:
        """The decision of the cell's last job, from which the model can be made again."""
        return self.folder / "decision.json.gz"

    @property
    def delta(self) -> Path:
        """Weights that were changed beside the cut, where there are any."""
        return self.folder / "delta.safetensors"

    def made_by(self, result: Path) -> list[Path]:
        """Files and folders that the job of a result leaves beside it, as far as they are there."""
        made = {
            "prune": (self.model, self.decision, self.decision_file, self.delta),
            "recover": (self.model, self.decision_file, self.delta),
            "evaluate": (self.items, self.generation_items),
        }
        return [path for path in made.get(result.stem, ()) if path.exists()]

    def log(self, job: str) -> Path:
        """What a job says on its way."""
        return self.folder / f"{job}.log"

    def work(self, job: str) -> Path:
        """Checkpoints of a job that has not ended."""
        return self.folder / f"{job}.work"


@dataclass(frozen=True)
class CampaignFolder:
    """The results of a campaign: what is below `root`, wherever that lies."""

    root: Path

    @property
    def campaign(self) -> Path:
        """The campaign as it was run."""
        return self.root / "campaign.yaml"

    @property
    def revisions(self) -> Path:
        """The commits of its hub repositories."""
        return self.root / "revisions.json"

    @property
    def leak(self) -> Path:
        """Which evaluation text is part of calibration or tuning text."""
        return self.root / "leak.json"

    @property
    def manifest(self) -> Path:
        """Digests of the views and of the records behind them."""
        return self.root / "views.json"

    @property
    def complete(self) -> Path:
        """Is there when all cells are well."""
        return self.root / "complete"

    @property
    def failures(self) -> Path:
        """Cells that failed, with their reasons."""
        return self.root / "failures.md"

    @property
    def cells(self) -> Path:
        """All cells: model / label / sparsity / seed."""
        return self.root / "cells"

    def cell(self, cell: Cell) -> CellPaths:
        """The files of a cell."""
        return CellPaths(self.cells / cell.path)

    def cell_pattern(self) -> CellPaths:
        """The files of any cell, with the workflow's wildcards."""
        return CellPaths(self.cells / "{model}" / "{label}" / "{sparsity}" / "seed{seed}")

    def profile(self, model: str) -> Path:
        """The profile of a model: all its pruned versions and the dense one, measured in turns."""
        return self.root / "profiles" / f"{model}.json"

    def view(self, name: str) -> Path:
        """One of VIEWS, or `plots`."""
        return self.root / name

    def job_results(self) -> list[Path]:
        """Every job's result that is there."""
        names = ("prune", "recover", "evaluate", "step")
        found = [path for name in names for path in self.root.glob(f"cells/*/*/*/*/{name}.json")]
        return sorted([*found, *self.root.glob("profiles/*.json")])
