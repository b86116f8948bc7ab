"""Settings: schema, presets, precedence, and messages that name the key."""

from __future__ import annotations

import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

from prunebench.errors import Invalid
from prunebench.recovery import SCHEMA, RecoverySettings, presets


def test_schema_is_valid_and_describes_every_key():
    Draft202012Validator.check_schema(SCHEMA)
    assert all(entry["description"] for entry in SCHEMA["properties"].values())
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["properties"]) == set(RecoverySettings.__dataclass_fields__)


@pytest.mark.parametrize("name", ["llm-pruner", "loraprune", "hywia", "pat", "lora-64"])
def test_presets_load_and_validate(name):
    settings = RecoverySettings.from_config({"preset": name})
    Draft202012Validator(SCHEMA).validate(settings.as_dict())
    assert all(settings.as_dict()[key] == value for key, value in presets()[name].items())


def test_the_papers_figures():
    paper = RecoverySettings.from_config({"preset": "llm-pruner"})
    assert (paper.rank, paper.alpha, paper.dropout, paper.learning_rate) == (8, 16, 0.05, 1e-4)
    assert (paper.batch, paper.micro_batch, paper.length, paper.epochs) == (64, 4, 256, 2)
    assert (paper.schedule, paper.warmup, paper.loss_on) == ("linear", 100, "response")
    assert len(paper.targets) == 7
    baseline = RecoverySettings.from_config({"preset": "lora-64"})
    assert (baseline.rank, baseline.batch, baseline.clip) == (64, 128, 0.3)
    assert (baseline.schedule, baseline.learning_rate) == ("cosine", 5e-5)


def test_a_key_overrides_the_preset_and_the_preset_the_default():
    settings = RecoverySettings.from_config({"preset": "loraprune", "rank": 4, "tokens": 1000})
    assert (settings.rank, settings.tokens) == (4, 1000)
    assert settings.loss_on == "all"  # the preset's; the default is the response
    assert settings.log_every == 10  # the default


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lerning_rate": 1e-4}, "recovery.lerning_rate: unknown key"),
        ({"preset": "lora-65"}, "recovery.preset: unknown preset 'lora-65'; known: llm-pruner"),
        ({"rank": 0}, "recovery.rank: expected minimum 1, got 0"),
        ({"rank": "8"}, "recovery.rank: got the text '8'"),
        ({"learning_rate": "1e-4"}, "recovery.learning_rate: got the text '1e-4'; .* 1.0e-4"),
        ({"precision": "fp16"}, "recovery.precision: expected enum"),
        ({"targets": []}, "recovery.targets: expected Names of the Linears"),
        ({"batch": 10, "micro_batch": 4}, r"recovery.micro_batch: .* batch \(10\), got 4"),
        ({"tokens": None, "epochs": None}, "recovery.tokens: both"),
        ({"warmup": 1.5}, "recovery.warmup: expected whole steps"),
    ],
)
def test_wrong_settings_name_their_key(config, message):
    with pytest.raises(Invalid, match=message):
        RecoverySettings.from_config(config)


def test_messages_carry_the_file():
    with pytest.raises(Invalid, match="config/x.yaml: recovery.rank"):
        RecoverySettings.from_config({"rank": -1}, where="config/x.yaml: recovery")


def test_warmup_in_steps_and_as_a_fraction():
    assert RecoverySettings.from_config({"warmup": 0.1}).warmup_steps(50) == 5
    assert RecoverySettings.from_config({"warmup": 7}).warmup_steps(50) == 7
    with pytest.raises(Invalid, match=r"recovery.warmup: expected fewer steps .* \(50\), got 50"):
        RecoverySettings.from_config({"warmup": 50}).warmup_steps(50)


def test_digest_depends_on_every_key():
    plain = RecoverySettings.from_config({})
    assert plain.digest() == RecoverySettings.from_config({}).digest()
    assert plain.digest() != RecoverySettings.from_config({"dropout": 0.1}).digest()


def test_importing_the_package_imports_nothing_heavy():
    heavy = "('torch', 'transformers', 'peft', 'datasets', 'jsonschema')"
    code = f"import sys, prunebench.recovery; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
