# Helpers of the rules: which files belong to a cell, and which device jobs run on.


wildcard_constraints:
    model="[^/]+",
    label="[^/]+",
    sparsity=r"[0-9.e-]+",
    seed="[0-9]+",


GPUS = workflow.global_resources.get("gpu")
GPUS = int(getattr(GPUS, "value", GPUS) or 0)
DEVICE = "cuda" if GPUS else "cpu"
THREADS = campaign.resources["threads"]
MEM_MB = campaign.resources["mem_mb"]
TIMEOUT_S = campaign.resources["timeout_s"] or 0
DEMO = [str(campaigns.DEMO_MODEL) + ".json"]
WORLD = [str(campaigns.DEMO_ROOT) + ".json"]
CELL = str(OUT / "cells" / "{model}" / "{label}" / "{sparsity}" / "seed{seed}")


def alone_on_its_device(wildcards):
    return THREADS if GPUS else workflow.cores


def cell_of(wildcards):
    return campaigns.Cell(
        wildcards.model, wildcards.label, float(wildcards.sparsity), int(wildcards.seed)
    )


def demo_inputs(wildcards):
    trained = DEMO if campaign.models[wildcards.model].kind == "demo" else []
    return trained + (WORLD if campaign.source == "demo" else [])


def pruned(wildcards):
    cell = cell_of(wildcards)
    row = campaign.rows[cell.label]
    twin = campaigns.Cell(cell.model, row.pruned_as, cell.sparsity, cell.seed)
    return OUT / "cells" / twin.path / "prune.json"


def matched(wildcards):
    cell = specs.matched_cell(campaign, cell_of(wildcards))
    return [] if cell is None else [OUT / "cells" / cell.path / "prune.json"]


def stage(wildcards):
    return OUT / "cells" / specs.stage(campaign, cell_of(wildcards))


def profiled(wildcards):
    cells = specs.profiled_cells(campaign, wildcards.model, wildcards.label)
    return [OUT / "cells" / cell.path / "prune.json" for cell in cells]


def results(name):
    return [OUT / "cells" / cell.path / name for cell in campaign.cells]


def profiles():
    if campaign.profile is None:
        return []
    names = dict.fromkeys(row.pruned_as for row in campaign.rows.values())
    return [OUT / "profiles" / m / f"{name}.json" for m in campaign.models for name in names]
