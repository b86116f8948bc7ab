"""A killed tuning resumes from its last complete checkpoint and ends where it would have ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback
from tuning_toy import examples, pruned_llama, settings, tokenizer

from prunebench.recovery import recover

KILLED = """
import os, signal
from transformers import TrainerCallback
from tuning_toy import examples, pruned_llama, settings, tokenizer
from prunebench.recovery import recover

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

recover(pruned_llama(), tokenizer(), examples(), settings(checkpoint_every=3),
        workdir={workdir!r}, seed=0, device="cpu", callbacks=[Kill()])
"""


class Crash(Exception):
    pass


class CrashAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Crash


@pytest.fixture(scope="module")
def toy_tokenizer():
    return tokenizer()


def _recover(tokenizer, workdir, *callbacks, seed=0, model=None, **keys):
    chosen = settings(**{"checkpoint_every": 3, **keys})
    return recover(
        model or pruned_llama(), tokenizer, examples(), chosen, workdir=workdir, seed=seed,
        device="cpu", callbacks=callbacks,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(toy_tokenizer, tmp_path_factory):
    """An uninterrupted run: (model, report)."""
    return _recover(toy_tokenizer, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def crashed(toy_tokenizer, tmp_path):
    """The work folder of a run that crashed after step 8, with checkpoints 3 and 6."""
    with pytest.raises(Crash):
        _recover(toy_tokenizer, tmp_path, CrashAt(8))
    assert sorted(p.name for p in (tmp_path / "tuning").iterdir()) == [
        "checkpoint-3", "checkpoint-6",
    ]  # fmt: skip
    return tmp_path


def _assert_same_end(resumed, whole):
    """Loss curve to 1e-6 and weights to 1e-7, though part of the run was another process."""
    curves = [torch.tensor(report["loss"]) for _, report in (resumed, whole)]
    assert curves[0].shape == curves[1].shape
    assert (curves[0] - curves[1]).abs().max() <= 1e-6
    pairs = zip(resumed[0].parameters(), whole[0].parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) <= 1e-7


def test_a_kill_costs_the_steps_since_the_checkpoint_and_nothing_else(
    toy_tokenizer, tmp_path, whole
):
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(workdir=str(tmp_path))],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    resumed = _recover(toy_tokenizer, tmp_path)
    assert resumed[1]["resumed_from_step"] == 6
    assert resumed[1]["tuning_tokens"] == whole[1]["tuning_tokens"]
    _assert_same_end(resumed, whole)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_hold_no_weights_outside_safetensors(crashed):
    files = {path.name for path in (crashed / "tuning" / "checkpoint-6").iterdir()}
    assert files == {
        "trainable.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
        "trainer_state.json", "complete.json",
    }  # fmt: skip


def _unseal(folder):
    (folder / "complete.json").unlink()


def _truncate(folder):
    path = folder / "trainable.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _lose_a_file(folder):
    (folder / "optimizer.pt").unlink()


def _garble_the_seal(folder):
    (folder / "complete.json").write_text("{")


@pytest.mark.parametrize("damage", [_unseal, _truncate, _lose_a_file, _garble_the_seal])
def test_a_half_written_checkpoint_is_not_used(crashed, toy_tokenizer, whole, damage):
    damage(crashed / "tuning" / "checkpoint-6")
    resumed = _recover(toy_tokenizer, crashed)
    assert resumed[1]["resumed_from_step"] == 3
    _assert_same_end(resumed, whole)


def test_without_a_complete_checkpoint_it_starts_over(crashed, toy_tokenizer, whole):
    for step in (3, 6):
        _unseal(crashed / "tuning" / f"checkpoint-{step}")
    resumed = _recover(toy_tokenizer, crashed)
    assert resumed[1]["resumed_from_step"] is None
    _assert_same_end(resumed, whole)


def _other_model():
    return pruned_llama(seed=1)


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"learning_rate": 1e-3}, {"tokens": 3000}, {"model": _other_model}]
)
def test_a_checkpoint_of_another_tuning_is_not_used(crashed, toy_tokenizer, other):
    other = {key: value() if callable(value) else value for key, value in other.items()}
    assert _recover(toy_tokenizer, crashed, **other)[1]["resumed_from_step"] is None


def test_a_second_crash_resumes_from_the_newer_checkpoint(crashed, toy_tokenizer, whole):
    with pytest.raises(Crash):
        _recover(toy_tokenizer, crashed, CrashAt(10))
    resumed = _recover(toy_tokenizer, crashed)
    assert resumed[1]["resumed_from_step"] == 9
    assert resumed[1]["wall_s"] > 0
    _assert_same_end(resumed, whole)


def test_a_checkpoint_at_the_last_step_is_enough(toy_tokenizer, tmp_path, whole):
    class CrashAtTheEnd(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            raise Crash

    with pytest.raises(Crash):
        _recover(toy_tokenizer, tmp_path, CrashAtTheEnd())
    resumed = _recover(toy_tokenizer, tmp_path)
    assert resumed[1]["resumed_from_step"] == whole[1]["steps"]
    _assert_same_end(resumed, whole)


def test_without_checkpoints_nothing_is_written(toy_tokenizer, tmp_path):
    with pytest.raises(Crash):
        _recover(toy_tokenizer, tmp_path, CrashAt(8), checkpoint_every=None)
    assert list((tmp_path / "tuning").iterdir()) == []


class Average(TrainerCallback):
    """A method's state: a running mean of gradient norms, one number per step."""

    def __init__(self):
        self.mean, self.loaded = torch.zeros(1), False

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.mean = 0.9 * self.mean + 0.1 * norm

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, tensors):
        self.mean, self.loaded = tensors["mean"], True


def test_the_state_of_a_methods_callback_is_restored(toy_tokenizer, tmp_path):
    uninterrupted, first, second = Average(), Average(), Average()
    _recover(toy_tokenizer, tmp_path / "whole", uninterrupted)
    with pytest.raises(Crash):
        _recover(toy_tokenizer, tmp_path / "crashed", first, CrashAt(8))
    _recover(toy_tokenizer, tmp_path / "crashed", second)
    assert second.loaded
    assert torch.allclose(second.mean, uninterrupted.mean, atol=1e-7)


def test_a_copied_folder_resumes_too(crashed, toy_tokenizer, tmp_path_factory, whole):
    moved = tmp_path_factory.mktemp("moved")
    shutil.copytree(crashed / "tuning", moved / "tuning")
    resumed = _recover(toy_tokenizer, moved)
    assert resumed[1]["resumed_from_step"] == 6
    _assert_same_end(resumed, whole)
