# Helpers of the rules: which files belong to a cell, and which device jobs run on.


wildcard_constraints:
    model="[^/]+",
    label="[^/]+",
    sparsity=r"[0-9.e-]+",
    seed="[0-9]+",


GPUS = workflow.global_resources.get("gpu")
GPUS = int(getattr(GPUS, "value", GPUS) or 0)
DEVICE = "cuda" if GPUS else "cpu"
THREADS = campaign.resources.threads
MEM_MB = campaign.resources.mem_mb
TIMEOUT_S = campaign.resources.timeout_s or 0
WORLD = [str(campaigns.DEMO_ROOT) + ".json"]
CELL = OUT.cell_pattern()


def alone_on_its_device(wildcards):
    return THREADS if GPUS else workflow.cores


def cell_of(wildcards):
    return campaigns.Cell(
        wildcards.model, wildcards.label, float(wildcards.sparsity), int(wildcards.seed)
    )


def demo_inputs(wildcards):
    return WORLD if campaign.source == "demo" else []


def pruned(wildcards):
    return OUT.cell(campaign.pruned(cell_of(wildcards))).prune


def matched(wildcards):
    cell = specs.matched_cell(campaign, cell_of(wildcards))
    return [] if cell is None else [OUT.cell(cell).prune]


def stage(wildcards):
    cell = cell_of(wildcards)
    return OUT.cell(cell).recover if campaign.rows[cell.label].recovery else pruned(wildcards)


def profiled(wildcards):
    cells = specs.profiled_cells(campaign, wildcards.model)
    return [OUT.cell(cell).prune for cell in cells]


def evaluations():
    return [OUT.cell(cell).evaluate for cell in campaign.cells]


def steps():
    return [OUT.cell(cell).step for cell in campaign.step_cells]


def profiles():
    return [OUT.profile(model) for model in campaign.models] if campaign.profile else []
