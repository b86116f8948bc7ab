"""What the tests of PAT share: tiny models of every family, with modules whose values matter."""

from __future__ import annotations

import torch
from conftest import make_tiny

from prunebench.plugins.discovery import discover
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.structure import Decision
from prunebench.recovery import RecoverySettings, attach

PLUGIN = discover()["pat"]
PRUNE = PLUGIN.load()
from prunebench_plugin_pat.options import PATOptions  # noqa: E402
from prunebench_plugin_pat.schedule import GateSchedule  # noqa: E402
from prunebench_plugin_pat.sparsifier import Sparsifier  # noqa: E402

TOKENS = torch.randint(258, (3, 21), generator=torch.Generator().manual_seed(1))
FAMILIES = {
    "llama": {},
    "llama-tied-biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3-tied": {"tie_word_embeddings": True},
    "gemma": {"tie_word_embeddings": True},
    "gemma-untied": {},
}


def family(name, **changes):
    return make_tiny(name.partition("-")[0], **{**FAMILIES[name], **changes})


def options(**params):
    return PATOptions.from_params(PLUGIN.params({"flavour": "code", **params}, where="test"))


def sparsifier_of(model, *, kept=24, rank=3, steps=300, attach=True, **params):
    """A sparsifier as `prune` makes it, attached to `model`."""
    chosen = options(rank=rank, **params)
    made = Sparsifier(
        structures_of(model)["hidden"],
        kept=kept,
        options=chosen,
        schedule=GateSchedule.over(steps, milestone=chosen.milestone, freeze=chosen.freeze),
        tied=model.config.tie_word_embeddings,
        seed=0,
    )
    if attach:
        made.attach(model)
    return made


@torch.no_grad()
def scramble(sparsifier, *, seed=0):
    """Give every parameter of the modules a value that changes the function."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sparsifier.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "mask":
            parameter.copy_(noise)
        else:
            parameter.add_(0.3 * noise)
    return sparsifier


def harden(sparsifier):
    """Settle the mask with gates of 0 and 1; the decision that goes with it."""
    sparsifier.settle()
    sparsifier.hard = True
    return Decision({"hidden": tuple(sparsifier.keep.nonzero().flatten().tolist())})


def meta_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                num_attention_heads=32, vocab_size=32000, tie_word_embeddings=False,
            )
        )  # fmt: skip


LORA = {"rank": 4, "alpha": 16, "dropout": 0.0, "targets": "auto"}


def tuned(name, *, steps=3, lora=LORA, **params):
    """A model with LoRA and modules after a few steps of AdamW: (model, wrapped, sparsifier)."""
    model = family(name)
    wrapped = attach(model, RecoverySettings.from_config(lora), seed=0)
    sparsifier = sparsifier_of(model, **params)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    for step in range(steps):
        sparsifier.step = step
        loss = wrapped(input_ids=TOKENS, labels=TOKENS).loss + sparsifier.penalty()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model, wrapped, sparsifier
