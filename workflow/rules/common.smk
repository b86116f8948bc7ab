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
ASKED = workflow.dag_settings
# In a job's own process, on a cluster, what is to be run has been decided.
PLAN = outstanding.Plan()


def is_asked_for(rule, path):
    """Whether the command line asks for an output in any case."""
    named = {rule, str(path)}
    return ASKED.forceall or bool(
        named & set(ASKED.forcerun) or (ASKED.forcetargets and named & set(ASKED.targets))
    )


# Content decides what is run again, and not Snakemake's notes: a copied folder has none.
if workflow.is_main_process:
    PLAN = outstanding.plan(campaign, KEPT, forced=is_asked_for)
    ASKED.rerun_triggers = frozenset()
    ASKED.forcerun = frozenset(ASKED.forcerun) | {str(path) for path in PLAN.stale()}


def due(path, *inputs):
    """Inputs of an output; those of one that is done are only named, and trigger nothing."""
    path = Path(path)
    if path in PLAN or not path.exists() or not workflow.is_main_process:
        return [str(name) for name in inputs]
    return [ancient(str(name)) for name in inputs if Path(name).exists()]


def alone_on_its_device(wildcards):
    return THREADS if GPUS else workflow.cores


def cell_of(wildcards):
    return campaigns.Cell(
        wildcards.model, wildcards.label, float(wildcards.sparsity), int(wildcards.seed)
    )


def world():
    return WORLD if campaign.source == "demo" else []


def pruned(wildcards):
    return OUT.cell(campaign.pruned(cell_of(wildcards))).prune


def matched(wildcards):
    cell = specs.matched_cell(campaign, cell_of(wildcards))
    return due(own(wildcards).prune, *([] if cell is None else [OUT.cell(cell).prune]))


def own(wildcards):
    return OUT.cell(cell_of(wildcards))


def stage(wildcards):
    cell = cell_of(wildcards)
    last = OUT.cell(cell).recover if campaign.rows[cell.label].recovery else pruned(wildcards)
    return due(own(wildcards).evaluate, last)


def profiled(wildcards):
    cells = specs.profiled_cells(campaign, wildcards.model)
    return due(OUT.profile(wildcards.model), *(OUT.cell(cell).prune for cell in cells))


def measured(wildcards):
    paths = [OUT.leak, *(OUT.cell(cell).evaluate for cell in campaign.cells)]
    paths += [OUT.cell(cell).step for cell in campaign.step_cells]
    paths += [OUT.profile(model) for model in campaign.models] if campaign.profile else []
    return due(OUT.view("leaderboard.md"), *paths)
