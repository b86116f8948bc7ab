"""Files by content, hub repositories by commit, and no hashing of what nobody touched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from prunebench import identity
from prunebench.errors import Invalid
from prunebench.identity import Revisions, commit_of, files_digests, model_identity

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """A fresh cache, and the names of the files that were read to be hashed."""
    monkeypatch.setenv("PRUNEBENCH_CACHE", str(tmp_path / "cache"))
    read, real = [], identity.sha256

    def spy(path):
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(identity, "sha256", spy)
    return read


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    names = ("config.json", "tokenizer.json", "model.safetensors", "README.md", "prunebench.json")
    for name in names:
        (folder / name).write_text(f"content of {name}")
    return folder


def test_a_file_is_read_once_and_again_only_when_it_was_touched(tmp_path, hashed):
    path = tmp_path / "weights"
    path.write_text("one")
    first = files_digests([path])[path]
    assert files_digests([path]) == {path: first} and hashed == ["weights"]
    os.utime(path)
    assert files_digests([path]) == {path: first} and hashed == ["weights"] * 2


def test_a_replacement_of_equal_size_and_time_is_seen(tmp_path, hashed):
    path, other = tmp_path / "weights", tmp_path / "other"
    path.write_text("one")
    stat = path.stat()
    first = files_digests([path])[path]
    other.write_text("two")
    os.replace(other, path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert files_digests([path])[path] != first


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"x": 1}', '{"/x": [1, 2, 3, 4, "no"]}'])
def test_a_cache_that_is_damaged_or_cannot_be_written_breaks_nothing(
    tmp_path, hashed, monkeypatch, content
):
    path = tmp_path / "weights"
    path.write_text("one")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "digests.json").write_text(content)
    first = files_digests([path])
    assert files_digests([path]) == first and len(hashed) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRUNEBENCH_CACHE", str(tmp_path / "file"))
    assert files_digests([path]) == first and len(hashed) == 2


def test_the_identity_of_a_model_is_what_loading_reads(model, hashed):
    first = model_identity(model)
    (model / "README.md").write_text("other words")
    (model / "prunebench.json").write_text("a note of the suite's")
    assert model_identity(model) == first
    for name, key in (
        ("model.safetensors", "weights_sha256"),
        ("tokenizer.json", "files_sha256"),
        ("config.json", "files_sha256"),
    ):
        before = model_identity(model)
        (model / name).write_text(f"another {name}")
        changed = {k for k, digest in model_identity(model).items() if digest != before[k]}
        assert changed == {key}
    before = model_identity(model)
    (model / "chat_template.jinja").write_text("{{ x }}")
    assert model_identity(model) != before


def test_a_link_to_a_model_is_that_model(model, tmp_path, hashed):
    (tmp_path / "link").symlink_to(model)
    assert model_identity(tmp_path / "link") == model_identity(model)


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that answers with one commit, and the questions that it was asked."""
    import huggingface_hub
    from huggingface_hub import constants

    asked = []

    def repo_info(self, repository, *, repo_type, revision, timeout):
        asked.append((repo_type, repository, revision))
        return SimpleNamespace(sha=COMMIT)

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return asked


def test_a_commit_stands_for_itself_and_a_name_is_asked_for(hub):
    assert commit_of("model", "a/b", "f" * 40) == "f" * 40 and hub == []
    assert commit_of("model", "a/b", None) == COMMIT and hub == [("model", "a/b", None)]
    assert commit_of("dataset", "a/b", "v1") == COMMIT and hub[1:] == [("dataset", "a/b", "v1")]


def test_offline_the_hubs_cache_is_asked(hub, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert commit_of("model", "a/b", None) is None and hub == []
    refs = tmp_path / "hub" / "models--a--b" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("e" * 40)
    assert commit_of("model", "a/b", None) == "e" * 40


def test_a_hub_that_does_not_answer_leaves_the_cache(hub, monkeypatch, tmp_path):
    import huggingface_hub

    def away(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", away)
    assert commit_of("model", "a/b", None) is None


def test_a_campaign_goes_on_with_the_commits_that_it_began_with(hub, monkeypatch, tmp_path):
    file = tmp_path / "revisions.json"
    first = Revisions(file)
    assert first.commit("model", "a/b", None) == COMMIT
    first.keep()
    later = Revisions(file)
    assert later.commit("model", "a/b", None) == COMMIT and len(hub) == 1
    assert json.loads(file.read_text()) == {"model a/b main": COMMIT}
    file.write_text("{")
    with pytest.raises(Invalid, match="revisions.json: not valid JSON.*delete it"):
        Revisions(file)


def test_a_campaign_on_the_hub_names_commits_in_its_specs(hub, tmp_path, monkeypatch):
    from prunebench.campaign import config, inputs, specs

    monkeypatch.chdir(tmp_path)
    raw = {
        "name": "c",
        "models": [{"name": "m", "kind": "hub", "id": "a/b"}],
        "data": {"source": "hub"},
        "methods": ["magnitude"],
        "sparsities": [0.5],
        "perplexity": ["ppl/llm-pruner"],
    }
    campaign = config.build(raw, file="c.yaml")
    spec = specs.evaluate_spec(campaign, campaign.cells[0])
    assert spec.model.revision == COMMIT
    assert spec.data.inputs["Salesforce/wikitext"] == COMMIT
    assert not Path("results").exists()  # planning writes nothing
    inputs.revisions(campaign).keep()
    assert Path("results/c/revisions.json").is_file()
