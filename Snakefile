# One call reproduces a campaign:   snakemake --cores all --configfile config/<campaign>.yaml
# Without --configfile it is config/demo.yaml. With --resources gpu=N, jobs run on N GPUs.
import hashlib
import json
from pathlib import Path

import yaml

from prunebench.campaign import config as campaigns
from prunebench.campaign import inputs, specs
from prunebench.errors import PrunebenchError
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.0")

if not config:
    config = campaigns.read_yaml(Path("config/demo.yaml"))
try:
    given = [str(path) for path in workflow.overwrite_configfiles]
    campaign = campaigns.build(dict(config), file=" + ".join(given) or "config/demo.yaml")
except PrunebenchError as error:
    raise WorkflowError(str(error)) from None

OUT = campaign.out


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


rule all:
    input:
        OUT / "leaderboard.md",
        OUT / "complete",


include: "workflow/rules/demo.smk"
include: "workflow/rules/cells.smk"
include: "workflow/rules/tables.smk"


onstart:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "campaign.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=True))
    inputs.revisions(campaign).keep()
