"""LoRA recovery on a token budget, and the Trainer that methods with training of their own share.

    settings = RecoverySettings.from_config({"preset": "llm-pruner", "tokens": 1_000_000})
    model, report = recover(model, tokenizer, examples, settings,
                            workdir=workdir, seed=0, device="cuda")

A method that prunes while it tunes takes the parts: `encode` the data, `attach` LoRA, build a
`trainer` with its own callbacks, `fit` it, `merge`. Importing this package imports no torch.
"""

from .instructions import Collator, RecoveryData, encode
from .lora import attach, merge
from .recover import recover
from .settings import SCHEMA, RecoverySettings, presets
from .template import TEMPLATES, prompt
from .training import fit, trainer

__all__ = [
    "SCHEMA",
    "TEMPLATES",
    "Collator",
    "RecoverySettings",
    "RecoveryData",
    "attach",
    "encode",
    "fit",
    "merge",
    "presets",
    "prompt",
    "recover",
    "trainer",
]
