"""The calibration samples of one pruning job, and what its record says of them."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunebench.campaign.specs import PruneSpec
from prunebench.errors import Invalid
from prunebench.evaluation.protocols import resolve_bos
from prunebench.pruning.architectures import relies_on_bos
from prunebench.text.calibration import calibration_tokens
from prunebench.text.fits import check_ids, check_length
from prunebench.text.source import text_digest
from prunebench.untyped import Json

NO_BOS = "without BOS in front, which this family relies on"


class Sampler:
    """Draws samples for a method. `drawn` describes each, in order: a record's `calibration`."""

    def __init__(
        self, spec: PruneSpec, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.spec, self.model, self.tokenizer = spec, model, tokenizer
        self.drawn: list[Json] = []

    @property
    def is_fixed(self) -> bool:
        """Whether all seeds of the campaign have the same samples."""
        return self.spec.calibration is not None and self.spec.calibration.seed is not None

    def __call__(self, samples: int | None, length: int | None) -> torch.Tensor:
        """Token ids [samples, length]; None: the campaign's numbers.

        Raises Invalid for a campaign without calibration text, too little of it, windows longer
        than the model's positions, and tokens that the model does not know.
        """
        settings = self.spec.calibration
        if settings is None:
            raise Invalid("the method needs calibration text: add `calibration` to the campaign")
        needs_bos = relies_on_bos(self.model.config.model_type)
        samples, length = samples or settings.samples, length or settings.length
        seed = self.spec.seed if settings.seed is None else settings.seed
        bos = resolve_bos(settings.bos, relies_on_bos=needs_bos)
        check_length(self.model, length, "calibration: windows")
        rows = self.spec.data.open().mixture(settings.corpus, settings.split)
        tokens = calibration_tokens(
            rows, self.tokenizer, samples=samples, length=length, seed=seed, bos=bos
        )
        check_ids(self.model, int(tokens.max()), "calibration")
        self.drawn.append(
            {
                "corpus": list(settings.corpus),
                "split": settings.split,
                "samples": samples,
                "length": length,
                "seed": seed,
                "bos": bos,
                "data_sha256": text_digest(rows),
                "warning": NO_BOS if needs_bos and bos != "window" else None,
            }
        )
        return tokens
