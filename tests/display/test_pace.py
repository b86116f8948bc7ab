"""The time that is left, and what a job's log says of how far it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunebench.display.pace import Pace, Running, how_far


def job(rule: str, since: float, cores: float = 1) -> Running:
    return Running(rule, {}, (), since, cores)


def test_nothing_is_foretold_before_a_job_has_ended() -> None:
    pace = Pace(2, {"prune": 2})
    pace.start(1, job("prune", 0))
    assert pace.left_s(5) is None


def test_time_left_counts_what_is_planned_by_rule_and_what_runs() -> None:
    pace = Pace(2, {"prune": 4, "evaluate": 2})
    pace.start(1, job("prune", 0))
    pace.start(2, job("evaluate", 0))
    pace.end(1, 10)
    pace.end(2, 30)
    assert (pace.ended, pace.total) == (2, 6)
    assert pace.left_s(30) == pytest.approx((3 * 10 + 30) / 2)
    pace.start(3, job("evaluate", 30))
    assert pace.left_s(40) == pytest.approx((3 * 10 + 20) / 2)
    # A job that takes longer than the others counts as about to end, not as less than nothing.
    assert pace.left_s(400) == pytest.approx(3 * 10 / 2)


def test_a_rule_without_an_end_costs_what_the_mean_job_does_and_one_on_all_cores_all_of_them() -> (
    None
):
    pace = Pace(4, {"prune": 1, "profile": 2})
    pace.start(1, job("prune", 0))
    pace.end(1, 8)
    assert pace.left_s(8) == pytest.approx(2 * 8 / 4)
    pace.start(2, job("profile", 8, cores=4))
    pace.end(2, 18)
    assert pace.left_s(18) == pytest.approx(10)


def test_a_job_that_was_never_seen_to_begin_is_nothing() -> None:
    assert Pace(1).end(7, 0.0) is None


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("INFO prunebench.recovery.loop: step 22/88 loss 2.4\n", 0.25),
        ("step 22/88 loss 2.4\n\rWriting model shards: 100%|###| 1/1 [00:00<00:00]\n", 0.25),
        ("\rRunning loglikelihood requests:  50%|███  | 5/10 [00:01<00:01, 2it/s]", 0.5),
        ("\rperplexity: 100%|###| 4/4 [00:01<00:00]\rperplexity:   0%|   | 0/8 [00:00<?]", 0.0),
        ("loss went from 3/4 to something\n", None),
        ("", None),
    ],
)
def test_the_last_count_of_a_log(tmp_path: Path, text: str, share: float | None) -> None:
    log = tmp_path / "job.log"
    log.write_text(text, encoding="utf-8")
    assert how_far(log) == share
    log.write_text("x" * 100_000 + "\n" + text, encoding="utf-8")
    assert how_far(log) == share


def test_no_log_says_nothing(tmp_path: Path) -> None:
    assert how_far(tmp_path / "none.log") is None
