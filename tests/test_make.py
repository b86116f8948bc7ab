"""The commands around the project: the Makefile, .ci/run and Snakemake's profiles.

The Makefile runs in a copy, with a stand-in for Python and its scripts that writes down what it is
asked to do, so that an installation takes milliseconds and can be cut off at a chosen place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "profiles"

# Fails when its name or first argument is $FAIL; kills make while it handles arguments with $CUT.
STAND_IN = """#!/bin/sh
name=$(basename "$0")
echo "$name $*" >> "$LOG"
[ "$name" = "$FAIL" ] && exit 3
[ "$1" = "$FAIL" ] && exit 3
[ -n "$CUT" ] && case "$*" in *"$CUT"*) kill -9 "$(cat venv/.installing)"; exit 1 ;; esac
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"
  for script in python snakemake prunebench; do cp "$0" "$3/bin/$script"; done
  echo 'PATH="$PWD/venv/bin:$PATH"' > "$3/bin/activate"
fi
exit 0
"""


class Project:
    """A copy of the files that make reads, and the record of what it ran."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.venv = folder, folder / "log", folder / "venv"
        for name in ["Makefile", "requirements.lock", "pyproject.toml"]:
            shutil.copy(ROOT / name, folder / name)
        (folder / "stand-in").write_text(STAND_IN)
        (folder / "stand-in").chmod(0o755)

    def make(self, target: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one target; what an outer make hands to its children must not reach this one."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        return subprocess.run(
            ["make", target, "PYTHON=./stand-in", "VENV=venv"],
            cwd=self.folder,
            env=clean | {"LOG": str(self.log), "FAIL": "", "CUT": ""} | env,
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        """What ran since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def project(tmp_path: Path) -> Project:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return Project(tmp_path)


def test_first_call_installs_torch_then_the_lock_then_the_project(project: Project) -> None:
    assert project.make("test").returncode == 0
    calls = project.calls()
    torch = re.search(r"(?m)^torch==\S+", (ROOT / "requirements.lock").read_text())
    expected = ["-c", "-m venv", torch.group(), "-r requirements.lock", "--editable .", "pytest"]
    assert len(calls) == len(expected)
    assert all(part in call for part, call in zip(expected, calls, strict=True)), calls


def test_second_call_installs_nothing_until_the_lock_changes(project: Project) -> None:
    project.make("test")
    project.calls()
    assert project.make("test").returncode == 0
    assert ["-m pytest" in call for call in project.calls()] == [True]

    stamp = (project.venv / ".installed").stat().st_mtime
    os.utime(project.folder / "requirements.lock", (stamp + 1, stamp + 1))
    assert project.make("test").returncode == 0
    assert any("-r requirements.lock" in call for call in project.calls())


def test_torch_version_is_stated_in_the_lock_alone(project: Project) -> None:
    assert not re.search(r"torch[=<>~]=?\s*\d", (ROOT / "Makefile").read_text())
    lock = project.folder / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^torch==.*", "torch==9.9.9", lock.read_text()))
    project.make("install")
    assert any(call.endswith("torch==9.9.9") for call in project.calls())


@pytest.mark.parametrize("place", ["-m venv", "torch==", "-r requirements.lock", "--editable"])
def test_interrupted_installation_starts_afresh(project: Project, place: str) -> None:
    assert project.make("test", CUT=place).returncode == -9
    assert not (project.venv / ".installed").exists()
    (project.venv / "half-written").touch()
    project.calls()

    again = project.make("test")
    assert again.returncode == 0 and "did not finish" in again.stdout
    assert not (project.venv / "half-written").exists()
    assert (project.venv / ".installed").exists() and not (project.venv / ".installing").exists()
    assert "-m pytest" in project.calls()[-1]


def test_failed_installation_is_no_installation(project: Project) -> None:
    assert project.make("install", FAIL="python").returncode != 0
    assert not (project.venv / ".installed").exists()


def test_environment_that_another_make_is_filling_is_left_alone(project: Project) -> None:
    project.venv.mkdir()
    (project.venv / ".installing").write_text(str(os.getpid()))
    result = project.make("install")
    assert result.returncode != 0 and "Another make" in result.stderr
    assert (project.venv / ".installing").exists()


def test_python_that_is_too_old_is_named(project: Project) -> None:
    result = project.make("test", FAIL="-c")
    assert result.returncode != 0 and not project.venv.exists()
    assert "needs Python 3.11 or later" in result.stderr and "./stand-in" in result.stderr


@pytest.mark.parametrize(
    ("fails", "succeeds"), [("", True), ("snakemake", False), ("prunebench", False)]
)
def test_demo_prints_the_leaderboard_and_tells_failure(
    project: Project, fails: str, succeeds: bool
) -> None:
    project.make("install")
    project.calls()
    assert (project.make("demo", FAIL=fails).returncode == 0) is succeeds
    assert project.calls() == [
        "snakemake --cores all --configfile config/demo.yaml",
        "prunebench report results/demo",
    ]


FETCH = "prunebench fetch smollm2-135m-instruct models/smollm2-135m-instruct"


@pytest.mark.parametrize(("short", "name"), [("", "smollm2"), ("1", "smollm2-short")])
@pytest.mark.parametrize(
    ("data", "options"), [("somewhere", ""), ("", " --config data={source: hub}")]
)
def test_real_fetches_the_model_then_runs_and_prints(
    project: Project, short: str, name: str, data: str, options: str
) -> None:
    """Data comes from the hub where no folder is named."""
    project.make("install")
    project.calls()
    assert project.make("real", SHORT=short, PRUNEBENCH_DATA=data).returncode == 0
    assert project.calls() == [
        FETCH,
        f"snakemake --cores all --configfile config/{name}.yaml{options}",
        f"prunebench report results/{name}",
    ]
    assert (ROOT / "config" / f"{name}.yaml").is_file()


@pytest.mark.parametrize(("fails", "ran"), [("snakemake", 3), ("report", 3), ("fetch", 1)])
def test_real_tells_failure_and_runs_nothing_without_the_model(
    project: Project, fails: str, ran: int
) -> None:
    project.make("install")
    project.calls()
    assert project.make("real", FAIL=fails).returncode != 0
    assert len(project.calls()) == ran


def test_real_is_listed_and_what_it_fetches_stays_out_of_git(project: Project) -> None:
    assert re.search(r"(?m)^make real  +\S", project.make("help").stdout)
    assert "/models/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("status", [0, 2])
def test_ci_passes_on_status_and_closing_line(tmp_path: Path, status: int) -> None:
    closing = "1 failed, 2 passed in 3.21s" if status else "3 passed, 1 skipped in 3.21s"
    fake = tmp_path / "make"
    fake.write_text(f"#!/bin/sh\necho '{closing}'\necho later\nexit {status}\n")
    fake.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = subprocess.run([ROOT / ".ci" / "run"], env=env, capture_output=True, text=True)
    assert result.returncode == status
    assert result.stdout.splitlines()[-1] == f"make test ended with status {status}: {closing}"


# ---------------------------------------------------------------- Snakemake's profiles


def parsed(*argv: str):
    """Snakemake's own reading of a command line with the profile that it names or finds."""
    from snakemake.cli import parse_args

    return parse_args(list(argv))[1]


@pytest.mark.parametrize("name", ["default", "slurm"])
def test_snakemake_takes_the_profile(name: str) -> None:
    args = parsed("--workflow-profile", str(PROFILES / name / "config.yaml"))
    assert args.rerun_incomplete and args.keep_going and args.show_failed_logs
    assert (args.executor == "slurm") is (name == "slurm")
    # without mtime a run that was interrupted between two jobs leaves the second one stale
    assert {str(trigger) for trigger in args.rerun_triggers} >= {"params", "input", "mtime"}


def test_snakemake_refuses_a_key_that_it_does_not_know(tmp_path: Path) -> None:
    profile = tmp_path / "config.yaml"
    profile.write_text("rerun-incomplet-typo: true\n")
    with pytest.raises(SystemExit):
        parsed("--workflow-profile", str(profile))


def test_default_profile_is_found_without_being_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    # Snakemake looks beside the Snakefile and in the working folder, in profiles/default.
    assert parsed("--cores", "1").rerun_incomplete


def test_profile_elsewhere_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Snakefile").touch()
    shutil.copytree(PROFILES, tmp_path / "workflow" / "profiles")
    monkeypatch.chdir(tmp_path)
    assert not parsed("--cores", "1").rerun_incomplete


def unexplained(profile: str) -> list[str]:
    """The paragraphs of a profile that set keys and do not begin with a comment."""
    paragraphs = [text for text in profile.split("\n\n") if yaml.safe_load(text)]
    return [text for text in paragraphs if not text.startswith("#")]


def test_profiles_explain_their_keys() -> None:
    texts = [path.read_text() for path in PROFILES.glob("*/config.yaml")]
    assert len(texts) == 2 and [unexplained(text) for text in texts] == [[], []]
    assert unexplained("# Why.\njobs: 1\n\ncores: 2\n") == ["cores: 2\n"]
