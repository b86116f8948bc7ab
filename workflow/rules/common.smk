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


@cache
def needs():
    """What a cluster is asked for; None on one machine, where the campaign's own limits hold."""
    from prunebench.estimate import needs as estimated

    if workflow.local_exec or not workflow.is_main_process:
        return estimated.announced()
    tries = 1 + workflow.execution_settings.retries
    found = estimated.needs(campaign, device=DEVICE, tries=tries)
    found.announce()
    return found


def asked(rule, of, here):
    """A resource of a rule: `of` what a cluster is asked for, or what holds `here`."""

    def value(wildcards, attempt):
        if (found := needs()) is None:
            return here
        label = getattr(wildcards, "label", "")
        return getattr(found, of)(f"{rule}/{wildcards.model}/{label}", attempt)

    return value


@cache
def plan():
    """What is to be run; decided once, when Snakemake asks for the first job's inputs.

    Content decides, and not Snakemake's notes and times: a copied folder has none that hold. In a
    job's own process, on a cluster, it has been decided already.
    """
    if not workflow.is_main_process:
        return None
    found = outstanding.plan(campaign, KEPT, forced=is_asked_for)
    workflow.dag_settings.rerun_triggers = frozenset()
    workflow.dag.forcefiles.update(map(str, found.reasons))
    return found


def is_asked_for(rule, path):
    """Whether the command line asks for an output in any case."""
    asked, named = workflow.dag_settings, {rule, str(path)}
    return asked.forceall or bool(
        named & set(asked.forcerun) or (asked.forcetargets and named & set(asked.targets))
    )


def due(path, *inputs):
    """Inputs of an output; those of one that is done are only named, and trigger nothing."""
    path, found = Path(path), plan()
    if found is None or path in found or not path.exists():
        return [str(name) for name in inputs]
    return [ancient(str(name)) for name in inputs if Path(name).exists()]


def alone_on_its_device(wildcards):
    return workflow.cores if not GPUS and needs() is None else THREADS


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
