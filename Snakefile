# One call reproduces a campaign:   snakemake --cores all --configfile config/<campaign>.yaml
# Without --configfile it is config/demo.yaml. With --resources gpu=N, jobs run on N GPUs.
from functools import cache
from pathlib import Path

import yaml

from prunebench import running
from prunebench.campaign import config as campaigns
from prunebench.campaign import advice, inputs, reading, specs
from prunebench.display import handler
from prunebench.errors import PrunebenchError
from prunebench.jobs import warm
from prunebench.results import outstanding
from prunebench.whole import write_text
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, update_config

min_version("9.0")

files = [Path(path) for path in workflow.overwrite_configfiles] or [Path("config/demo.yaml")]
try:
    # Read anew: to Snakemake 2e-3 is text. What the command line says (--config) wins.
    config, home = reading.read_files(files)
    update_config(config, dict(workflow.config_settings.config))
    campaign = campaigns.build(config, file=" + ".join(map(str, files)), folder=home)
except PrunebenchError as error:
    raise WorkflowError(str(error)) from None

OUT = campaign.out
KEPT = reading.portable(config, home)
# What a killed run left locked is free again: the same call finishes it.
if workflow.is_main_process:
    handler.install(logger, workflow.output_settings, workflow.cores or 1)
    for warning in advice.warnings(campaign):
        logger.warning(warning)
    running.clear_stale(Path(".snakemake/locks"), OUT.root)


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


rule all:
    input:
        OUT.view("leaderboard.md"),
        OUT.complete,


include: "workflow/rules/demo.smk"
include: "workflow/rules/cells.smk"
include: "workflow/rules/tables.smk"


onstart:
    try:
        running.hold(OUT.root)
    except PrunebenchError as error:
        raise WorkflowError(str(error)) from None
    if workflow.local_exec and not GPUS:
        warm.start(OUT.root, min(THREADS, workflow.cores))
    if OUT.view("leaderboard.md") in plan():  # the tables know the file that they were made by
        write_text(OUT.campaign, yaml.safe_dump(KEPT, sort_keys=True))
    inputs.revisions(campaign).keep()
