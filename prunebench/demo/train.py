"""Train `demo-llama` on the demo world: a plain loop over a fixed number of steps."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.files import cut_rows, json_lines, read_text, sha256
from prunebench.recovery.template import prompt
from prunebench.untyped import Json
from prunebench.whole import whole_folder

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

log = logging.getLogger(__name__)

LOG = "training.json"
CORPORA = ("encyclopedia", "newswire")
INSTRUCTIONS = "instructions/train.jsonl"
QUESTION = "Question: {instruction}\nAnswer: {output}"


@dataclass(frozen=True)
class DemoRecipe:
    """Everything that shapes the model besides the world and the seed."""

    steps: int = 600
    batch: int = 16
    length: int = 128  # tokens per window
    peak_rate: float = 3e-3
    final_rate: float = 1e-4
    warmup_steps: int = 40
    # Decay strong enough that norms tell importance, as in models that were trained for long. With
    # twice as much and a large epsilon, attention vanishes from all layers but the first.
    weight_decay: float = 0.5
    epsilon: float = 1e-6
    clip_norm: float = 1.0
    # Shares of the documents; tuning is instruction rows in the tuning wording.
    encyclopedia: float = 0.22
    newswire: float = 0.18
    recall: float = 0.28
    reading: float = 0.27
    tuning: float = 0.05
    hidden: int = 128
    layers: int = 4
    heads: int = 16  # many and narrow: recall is learned early, and does not hang on one of them
    kv_heads: int = 8
    neurons: int = 448
    max_positions: int = 512


RECIPE = DemoRecipe()


def pretrain(
    root: Path,
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Json:
    """Train `demo-llama` on the world at `root` and save it, whole or not at all, at `out`.

    `out` becomes a stock Hugging Face folder (safetensors, tokenizer) with the training log
    `training.json`, which is also returned. The number of steps is fixed by the recipe (`steps`
    overrides it, for tests), so the model does not depend on the machine's speed. Raises `Invalid`
    where `root` is no demo world or `out` holds other files.
    """
    import torch

    texts = _read(root)
    recipe = RECIPE if steps is None else DemoRecipe(steps=steps)
    before = torch.get_num_threads()
    with whole_folder(out, owned_by=LOG) as draft, torch.random.fork_rng(devices=[]):
        try:
            torch.set_num_threads(threads or before)
            torch.manual_seed(seed)
            report = _train(texts, draft, recipe, seed)
        finally:
            torch.set_num_threads(before)
        report["data_sha256"] = {path: sha256(Path(root) / path) for path in _inputs()}
        (draft / LOG).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _train(texts: dict[str, list[str]], draft: Path, recipe: DemoRecipe, seed: int) -> Json:
    import torch

    from prunebench.models.word_tokenizer import make_tokenizer

    tokenizer = make_tokenizer(
        (text for rows in texts.values() for text in rows), max_length=recipe.max_positions
    )
    ids = {
        kind: tokenizer(rows, return_attention_mask=False)["input_ids"]
        for kind, rows in texts.items()
    }
    # A blank line ends a document, as in the perplexity protocol, which joins rows by one.
    end = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    batches = _batches(ids, end, recipe, random.Random(f"{seed}/documents"))
    model = _model(len(tokenizer), recipe, tokenizer.bos_token_id, tokenizer.eos_token_id)
    started = time.perf_counter()
    losses = _loop(model, batches, recipe)
    seconds = time.perf_counter() - started
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    curve = [
        {"step": i + 1, "loss": round(loss, 4)}
        for i, loss in enumerate(losses)
        if (i + 1) % 10 == 0 or i + 1 == len(losses)
    ]
    return {
        "steps": recipe.steps,
        "tokens": recipe.steps * recipe.batch * recipe.length,
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "recipe": asdict(recipe),
        "loss_curve": curve,
    }


def _loop(
    model: LlamaForCausalLM, batches: Iterator[torch.Tensor], recipe: DemoRecipe
) -> list[float]:
    """A fixed number of steps; returns the loss of every step (nats per token)."""
    from prunebench.pretraining.loop import fit, make_optimizer

    optimizer = make_optimizer(model, weight_decay=recipe.weight_decay, epsilon=recipe.epsilon)
    losses: list[float] = []

    def after_step(step: int, loss: torch.Tensor) -> None:
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            log.info("step %d of %d: loss %.3f", step + 1, recipe.steps, losses[-1])

    def rate_at(step: int) -> float | None:
        return _rate(step, recipe) if step < recipe.steps else None

    fit(model, optimizer, batches, rate_at, clip_norm=recipe.clip_norm, after_step=after_step)
    return losses


def _rate(step: int, recipe: DemoRecipe) -> float:
    """Learning rate: linear warm-up, then half a cosine down to the final rate."""
    from prunebench.pretraining.loop import cosine

    if step < recipe.warmup_steps:
        return recipe.peak_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return cosine(done, peak=recipe.peak_rate, final=recipe.final_rate)


def _batches(
    ids: dict[str, list[list[int]]], end: list[int], recipe: DemoRecipe, rng: random.Random
) -> Iterator[torch.Tensor]:
    """Windows of one endless stream of documents, half of them after a BOS: [batch, length + 1]."""
    import torch

    kinds = tuple(ids)
    shares = [getattr(recipe, kind) for kind in kinds]
    stream: list[int] = []
    while True:
        windows = []
        for _ in range(recipe.batch):
            while len(stream) <= recipe.length:
                document = rng.choice(ids[rng.choices(kinds, shares)[0]])
                stream += document[rng.random() < 0.5 :] + end
            windows.append(stream[: recipe.length + 1])
            del stream[: recipe.length]
        yield torch.tensor(windows)


def _model(vocabulary: int, recipe: DemoRecipe, bos: int, eos: int) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.neurons,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.max_positions,
        bos_token_id=bos,
        eos_token_id=eos,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def _inputs() -> list[str]:
    return [*(f"{corpus}/train.txt" for corpus in CORPORA), INSTRUCTIONS]


def _read(root: Path) -> dict[str, list[str]]:
    """The training documents by kind: both corpora, the questions, the tuning wording."""
    root = Path(root)
    for path in _inputs():
        if not (root / path).is_file():
            raise Invalid(f"{root / path}: expected a demo world there, found no such file")
    texts = {
        corpus: cut_rows(read_text(root / corpus / "train.txt"), "stripped") for corpus in CORPORA
    }
    rows = [row for _, row in json_lines(root / INSTRUCTIONS)]
    texts["recall"] = [QUESTION.format(**row) for row in rows if not row["input"]]
    texts["reading"] = [f"{row['input']}\n{QUESTION.format(**row)}" for row in rows if row["input"]]
    texts["tuning"] = [prompt(row) + row["output"] for row in rows]
    return texts
