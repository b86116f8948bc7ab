"""The page as a file: complete, safe with any name, the same bytes from the same records."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from prunebench.leaderboard import Problem
from prunebench.leaderboard.views.page import parts, sort_value
from prunebench.leaderboard.views.page.data import drawable, thinned

from . import factory
from .typed import build

HOSTILE = (
    "</script><script>alert(1)</script> \"' onload=alert(2) {{ 7*7 }} <img src=x onerror=alert(3)>"
)


class Tags(HTMLParser):
    """Elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


def rich(*models: str) -> list[dict[str, Any]]:
    """Two methods at two sparsities with all that a cell's section draws, and lost cells."""
    models = models or ("demo-llama",)
    grid = {"methods": ("pat", "random"), "sparsities": (0.2, 0.5)}
    records = list(factory.campaign(models=models, **grid))
    for record in records:
        if record["cell"]["sparsity"]:
            record |= {"decision": factory.decision(), "method_notes": factory.notes()}
            record["tuning"] = factory.tuning()
    records.append(factory.lost(model=models[0], label="hywia", reason="out of memory"))
    skipped = {"status": "skipped", "reason": "needs a GPU"}
    return [*records, factory.lost(model=models[0], label="other", **skipped)]


def page(records: list[dict[str, Any]], out: Path, **more: Any) -> str:
    build(records, more.pop("problems", []), out, title=more.pop("title", "demo"), **more)
    return (out / "index.html").read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, Any]:
    return json.loads(Tags(text).scripts[0])


def test_it_is_one_file_that_asks_no_network(tmp_path: Path) -> None:
    text = page(rich(), tmp_path)
    tags = Tags(text)
    assert not [t for t, a in tags.found if t in ("script", "link", "img") and a.get("src")]
    links = [a.get("href") or "" for t, a in tags.found if t in ("a", "link")]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in text and not re.search(r"url\((?!data:)[\"']?http", text)
    assert len(text) < 900_000


def test_the_policy_admits_the_pages_own_scripts_and_no_other(tmp_path: Path) -> None:
    tags = Tags(page(rich(), tmp_path))
    policy = next(a["content"] or "" for t, a in tags.found if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    admitted = set(re.findall(r"'sha256-([^']+)'", policy))
    digests = {
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in tags.scripts[1:]
    }
    assert admitted == digests and len(digests) == 5
    assert "script-src 'sha256-" in policy and "script-src 'unsafe" not in policy


def test_no_name_brings_in_markup(tmp_path: Path) -> None:
    plain = Tags(page(rich(), tmp_path / "plain"))
    records = rich()
    for record in records:
        record["cell"] |= {"model": HOSTILE, "campaign": HOSTILE}
        record["cell"]["label"] += HOSTILE
        record["provenance"]["device"] = HOSTILE
        record["reason"] = record["reason"] and HOSTILE
        if "decision" in record:
            record["decision"][HOSTILE] = {"kind": HOSTILE, "layer": 0, "units": 2, "kept": 1}
            record["method_notes"] = {HOSTILE: {HOSTILE: HOSTILE}, **record["method_notes"]}
            record["method_notes"]["blends"]["title"] = HOSTILE
    problems = [Problem(HOSTILE, HOSTILE)]
    text = page(records, tmp_path / "hostile", title=HOSTILE, problems=problems)
    hostile = Tags(text)
    assert len(hostile.scripts) == len(plain.scripts)
    for kind in ("script", "img", "style", "iframe", "meta", "link"):
        count = [sum(t == kind for t, _ in tags.found) for tags in (plain, hostile)]
        assert count[0] == count[1], kind
    assert not [a for _, a in hostile.found if any(name.startswith("on") for name in a)]
    assert "49" not in text.split("<h1>")[1].split("</h1>")[0]
    assert data_of(text)["cells"][0]["name"].startswith(HOSTILE.split()[0])


def test_what_was_lost_is_counted_on_top_and_stands_in_every_view(
    tmp_path: Path, static_plots: None
) -> None:
    problems = [Problem("cells/a/record.json", "truncated or not JSON")]
    text = page(rich(), tmp_path, problems=problems)
    counts = "15 cells: 13 ok, 1 failed, 1 skipped; 1 record left out."
    head, _, body = text.partition("<main>")
    assert f"<strong>{counts}</strong>" in head and "incomplete" in head
    assert body.count("failed: out of memory (seed 0)") >= 4  # quality, tasks, size, speed, cost
    assert "cells/a/record.json" in body and "truncated or not JSON" in body
    data = data_of(text)
    assert data["fronts"][0]["lost"] == ["hywia at 50 %: 1 failed", "other at 50 %: 1 skipped"]
    statuses = {cell["name"].split(" / ")[1]: cell["status"] for cell in data["cells"]}
    assert statuses == {
        "dense": "ok",
        "hywia": "failed",
        "other": "skipped",
        "pat": "ok",
        "random": "ok",
    }
    svg = next((tmp_path / "plots").glob("*.svg")).read_text(encoding="utf-8")
    assert "not measured: hywia at 50 %: 1 failed; other at 50 %: 1 skipped" in svg


def test_a_null_is_never_drawn_as_zero(tmp_path: Path) -> None:
    records = rich()
    for record in records:
        if record["cell"]["label"] == "pat":
            record["perplexity"]["ppl/wikitext2-128"] |= {"value": None}
            record["profile"] = {"status": "skipped", "reason": "not asked for"}
    (front,) = data_of(page(records, tmp_path))["fronts"]
    titles = {axis["title"]: axis["key"] for axis in [*front["qualities"], *front["costs"]]}
    line = next(line for line in front["lines"] if line["name"] == "pat")
    for title in ("wikitext2/128 perplexity", "Decode speed-up at b1-p64-n16"):
        assert all(titles[title] not in point["values"] for point in line["points"])
    ptb = titles["ptb/128 perplexity"]
    assert all(point["values"][ptb][0] > 1 for point in line["points"])


def test_the_section_of_a_cell_has_decision_curve_notes_and_provenance(tmp_path: Path) -> None:
    data = data_of(page(rich(), tmp_path))
    cell = next(c for c in data["cells"] if c["name"] == "demo-llama / pat / 0.5 / seed 1")
    assert cell["decision"]["kinds"] == ["heads", "neurons", "hidden"]
    assert cell["decision"]["kept"]["heads"][0] == [0, 8, 8]
    assert cell["curve"][0][0] == 1 and len(cell["curve"]) == 40
    assert [plot["title"] for plot in cell["plots"]] == ["Blend of saliencies", "Two curves"]
    assert cell["notes"] == [["calibration", '{"length": 128, "samples": 32}']]
    facts = dict(cell["facts"])
    assert facts["Target sparsity"] == "50 %" and facts["Tuned on"].startswith("alpaca, by the")
    shown = {data["quantities"][i]["title"]: value for i, value, _ in cell["values"]}
    assert "wikitext2/128" in shown and "Prune s" in shown
    assert ["Commit", "0123456789abcdef0123456789abcdef01234567"] in data["provenances"][
        cell["provenance"]
    ]


def test_the_same_records_in_any_order_give_the_same_bytes(
    tmp_path: Path, static_plots: None
) -> None:
    records, problems = rich(), [Problem("b", "x"), Problem("a", "y")]
    first = build(records, problems, tmp_path / "0", title="demo")
    names = {path.name for path in (tmp_path / "0").rglob("*") if path.is_file()}
    assert {"index.html", "leaderboard.parquet"} <= names
    assert sum(name.endswith((".svg", ".png")) for name in names) == 6
    shuffled = random.Random(1).sample(records, len(records))
    build(shuffled, problems[::-1], tmp_path / "1", title="demo")
    for path in sorted((tmp_path / "0").rglob("*")):
        if path.is_file():
            again = tmp_path / "1" / path.relative_to(tmp_path / "0")
            assert path.read_bytes() == again.read_bytes(), path.name
    assert all(file.is_file() for file in first.files)


def test_plots_are_pictures_and_those_of_another_build_go(
    tmp_path: Path, static_plots: None
) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "old.svg").write_text("<svg/>")
    page(rich(), tmp_path, title="$x^2$ <b>")
    made = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert "old.svg" not in made and "demo-llama-wikitext2-128-perplexity.png" in made
    for name, content in made.items():
        if name.endswith("png"):
            width, height = struct.unpack(">II", content[16:24])
            assert content.startswith(b"\x89PNG") and width > 800 and height > 300
        else:
            assert content.startswith(b"<?xml") and b"pat" in content


def test_a_model_name_is_no_path(tmp_path: Path, static_plots: None) -> None:
    records = [factory.record(model="../../$x/evil", sparsity=0.0, label="dense")]
    page([*records, factory.record(model="../../$x/evil")], tmp_path / "out")
    files = [path for path in tmp_path.rglob("*") if path.suffix == ".svg"]
    assert files and all(path.parent == tmp_path / "out" / "plots" for path in files)


@pytest.mark.parametrize("records", [[], [factory.lost(reason="no such model")]])
def test_a_page_without_numbers(
    tmp_path: Path, records: list[dict[str, Any]], static_plots: None
) -> None:
    text = page(records, tmp_path)
    assert "0 ok" in text and len(data_of(text)["cells"]) == len(records)


# --- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12.34 ± 0.21 (0.05)", "12.34"),
        ("−4.3 (−5.4 to −3.2)", "-4.3"),
        ("+1,234 (+1 to +2)", "1234.0"),
        ("±0.0", "0.0"),
        ("805 k", "805000.0"),
        ("50.1 %", "50.1"),
        ("✓ 4e-06", "4e-06"),
        ("–", ""),
        ("", ""),
        ("llm_pruner †", "llm_pruner †"),
    ],
)
def test_columns_are_sorted_by_their_numbers(text: str, number: str) -> None:
    assert sort_value(text) == number


def test_a_number_stands_out_from_its_errors() -> None:
    assert parts("12.34 ± 0.21 (0.05) (n = 2)") == ("12.34", " ± 0.21", " (0.05) (n = 2)")
    assert parts("+1.3 (+0.7 to +1.9)") == ("+1.3", "", " (+0.7 to +1.9)")
    assert parts("random (method, {})") == ("random (method, {})", "", "")
    assert parts("12.34 ± 0.21 (0.05) ↧") == ("12.34", " ± 0.21", " (0.05) ↧")
    for text in ("12.34 ± – (0.02)", "97.3", "–", "a ± b (c)", "9.1 ± 0.2 ↧", "9.1 ↧"):
        assert "".join(parts(text)) == text


def test_only_notes_of_the_agreed_form_are_drawn() -> None:
    notes = factory.notes()
    assert [drawable(notes[key]) for key in notes] == ["heatmap", "line", ""]
    heat, line = notes["blends"], notes["curve"]
    for broken in (
        {**heat, "values": heat["values"][:-1]},
        {**heat, "values": [row[:-1] for row in heat["values"]]},
        {**heat, "values": [["x"] * 6] * 3},
        {**heat, "title": None},
        {**heat, "rows": [0] * 9000, "values": [[0] * 6] * 9000},
        {**line, "series": {"a": [[1]]}},
        {**line, "series": {"a": 3}},
        {**line, "series": {}},
        [heat],
    ):
        assert drawable(broken) == ""


def test_long_curves_are_thinned_with_both_ends() -> None:
    points = [[i, i] for i in range(10_001)]
    found = thinned(points)
    assert len(found) == 400 and found[0] == [0, 0] and found[-1] == [10_000, 10_000]
    assert thinned(points[:5]) == points[:5]
