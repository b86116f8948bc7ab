"""What a campaign reads from outside, by content: it goes into the specs of the jobs that read it.

A changed model, corpus, instruction or task file thus runs those jobs again, and a file that was
only touched runs none. The demo's world does not exist when a campaign is planned; the workflow
tracks it as a file. Random models and texts are made from their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench import outside
from prunebench.errors import Invalid
from prunebench.files import joined
from prunebench.identity import Revisions, file_digest, model_identity
from prunebench.pruning.architectures.folder import FAMILY
from prunebench.text.source import CORPORA, INSTRUCTIONS, Source, corpora_of

if TYPE_CHECKING:
    from prunebench.campaign.config import Campaign, Model

Digests = Mapping[str, str]


def of_model(campaign: Campaign, model: Model) -> dict[str, str]:
    """Digests of a local folder, the commit of a hub model, the code of families outside."""
    families = {f"family {name}": outside.digest(Path(name), FAMILY) for name in model.families}
    return {**_weights_of(campaign, model), **families}


def _weights_of(campaign: Campaign, model: Model) -> dict[str, str]:
    from prunebench.models.shipped import locate

    if model.kind in ("local", "demo"):
        return dict(_folder(locate(model.kind, model.source)))
    if model.kind == "hub":
        commit = revisions(campaign).commit("model", model.source, model.revision)
        return {"revision": commit} if commit else {}
    return {}


def of_corpora(
    campaign: Campaign, corpora: str | list[str] | tuple[str, ...], split: str
) -> Digests:
    """corpus/split -> digest of its file, or commit of its data set."""
    found: dict[str, str] = {}
    for name in corpora_of(corpora):
        if campaign.source == "hub":
            found |= _on_hub(campaign, (CORPORA[name].hub or ("",))[0], CORPORA[name].hub)
        elif campaign.source == "local":
            found[f"{name}/{split}"] = _file(_source(campaign).corpus_file(name, split))
    return found


def of_calibration(campaign: Campaign) -> Digests:
    """Of the text that methods are calibrated on."""
    if campaign.calibration is None:
        return {}
    return of_corpora(campaign, campaign.calibration.corpus, campaign.calibration.split)


def of_recovery(campaign: Campaign) -> Digests:
    """Of the text or the instructions that models are tuned on."""
    if campaign.recovery is None:
        return {}
    if (name := campaign.recovery.instructions) is None:
        return of_corpora(campaign, campaign.recovery.text, "train")
    if campaign.source == "hub":
        return _on_hub(campaign, INSTRUCTIONS[name][1] or "", None)
    if campaign.source == "local":
        return {f"instructions/{name}": _file(_source(campaign).instructions_file(name))}
    return {}


def of_evaluation(campaign: Campaign) -> Digests:
    """Of the corpora and the tasks that models are measured on."""
    found: dict[str, str] = {}
    for protocol in campaign.perplexity:
        found |= of_corpora(campaign, protocol.corpus, protocol.split)
    for suite in campaign.suites:
        found |= _suite(campaign, suite)
    return found


def revisions(campaign: Campaign) -> Revisions:
    """The commits that this campaign's hub repositories stand for."""
    return _revisions(campaign.out.revisions)


def _suite(campaign: Campaign, name: str) -> Digests:
    """Of the suite's definition, and of each task's documents where they are local."""
    folder = (_source(campaign).root or Path()) / "zeroshot" if campaign.source == "local" else None
    return _suite_in(name, folder)


@cache
def _suite_in(name: str, folder: Path | None) -> Digests:
    """The same, once for all cells: a suite is several files. folder: of documents, if any."""
    from prunebench.evaluation.zeroshot.stock import OWN, stock_path
    from prunebench.evaluation.zeroshot.suites import load_suite

    suite = load_suite(name)
    found = {f"suite/{name}": hashlib.sha256(repr(suite).encode()).hexdigest()}
    for task in suite.tasks:
        if task.stock.startswith(OWN):
            found[f"suite/{task.name}"] = _file(stock_path(task))
    if folder is None:
        return found
    for task in suite.tasks:
        # Of a group each task has a file, and examples lie in files beside the documents'.
        several = task.group or task.shots or not task.stock.endswith(".yaml")
        pattern = f"{task.group or task.file}{'*' * bool(several)}.jsonl"
        if files := sorted(folder.glob(pattern)):
            found[f"zeroshot/{task.name}"] = joined([_file(path) for path in files])
    return found


def _on_hub(campaign: Campaign, repository: str, hub: tuple[object, ...] | None) -> Digests:
    named = str(hub[3]) if hub is not None and hub[3] is not None else None
    commit = revisions(campaign).commit("dataset", repository, named) if repository else None
    return {repository: commit} if commit else {}


def _source(campaign: Campaign) -> Source:
    from prunebench.campaign.config import campaign_source

    return campaign_source(campaign)


@cache
def _revisions(file: Path) -> Revisions:
    return Revisions(file)


@cache
def _folder(folder: Path) -> Digests:
    return model_identity(folder)


@cache
def _file(path: Path) -> str:
    return file_digest(path)


def check_unchanged(folder: Path, planned: Digests) -> None:
    """Raise Invalid where a model is no longer the one that the job was planned with."""
    now = model_identity(folder)
    changed = [key for key, digest in planned.items() if key in now and now[key] != digest]
    if changed:
        raise Invalid(
            f"model {folder}: was changed after the campaign was planned ({', '.join(changed)}); "
            "run the same call again"
        )
