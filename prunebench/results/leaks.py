"""Does the campaign's calibration or tuning text contain text that it evaluates on?

Checked once for a campaign, over all the text that a seed could draw from. Needs no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prunebench.campaign.config import Campaign, campaign_source
from prunebench.text.leak import leak
from prunebench.text.source import Source
from prunebench.untyped import Json

KINDS = ("calibration", "tuning")


def check(campaign: Campaign) -> Json:
    """Shares of contaminated items, for calibration and for tuning text: {kind: {"sets": ...}}."""
    source = campaign_source(campaign)
    if source.kind == "random":
        return {}  # nothing is evaluated on
    found: Json = {}
    for kind, texts in training_texts(campaign, source).items():
        found[kind] = leak(texts, evaluation_texts(campaign, source))
    return found


def training_texts(campaign: Campaign, source: Source) -> dict[str, Iterable[str]]:
    """What methods may look at: the calibration split, and the instruction records."""
    texts: dict[str, Iterable[str]] = {}
    if campaign.calibration is not None:
        texts["calibration"] = source.mixture(
            campaign.calibration.corpus, campaign.calibration.split
        )
    if campaign.recovery is not None:
        records = campaign.recovery.records(source)
        texts["tuning"] = ("\n".join(record.values()) for record in records)
    return texts


def evaluation_texts(campaign: Campaign, source: Source) -> dict[str, Iterator[str]]:
    """What is measured on: the rows of every corpus, and the items of every task."""
    from prunebench.evaluation.zeroshot import item_texts

    texts: dict[str, Iterator[str]] = {}
    for protocol in campaign.perplexity:
        rows = source.rows(protocol.corpus, protocol.split)
        texts[f"{protocol.corpus}-{protocol.split}"] = iter(rows)
    for suite in campaign.suites:
        texts |= item_texts(suite=suite, source=source)
    return texts
