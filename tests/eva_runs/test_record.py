"""The starts of a run, and what is said of how it came about."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from eva_runs import record
from eva_runs.record import (
    STARTS,
    THRESHOLD,
    calling_command,
    read_threshold,
    record_start,
    run_facts,
)


@pytest.fixture
def now(monkeypatch):
    """The clock of the module: a list with the time."""
    clock = [1_000_000.0]
    monkeypatch.setattr(record.time, "time", lambda: clock[0])
    return clock


def duration(folder, kind):
    return dict(run_facts(folder, kind, seed=0, device="cpu")).get("duration")


def test_a_training_that_was_continued_names_its_starts(tmp_path, now):
    record_start(tmp_path, "training")
    now[0] += 5_000
    record_start(tmp_path, "training")
    now[0] += 31
    facts = dict(run_facts(tmp_path, "training", seed=7, device="cpu", processes=2))
    assert facts["duration"] == "31 s, the last of 2 starts"
    assert facts["seed"] == "7"
    assert facts["processes"] == "2 on cpu"
    assert facts["date"].count(":") >= 3


def test_a_start_that_was_refused_does_not_count(tmp_path, now):
    record_start(tmp_path, "training", continues=False)
    now[0] += 86_400
    record_start(tmp_path, "training", continues=False)
    now[0] += 30
    assert duration(tmp_path, "training") == "30 s"
    record_start(tmp_path, "training", continues=True)
    assert duration(tmp_path, "training").endswith("2 starts")


@pytest.mark.parametrize(
    "damage",
    [
        *(b'{"kind": "training", "beg', b"\xff\xfe\0", b"{" * 100_000),
        b'3\n{"kind": "training", "began": NaN}\n{"kind": "training", "began": "x"}',
        b'{"kind": "training", "began": 1' + b"0" * 400 + b"}",
        b'{"kind": "training", "began": 999990, "command": 3}',
    ],
)
def test_a_damaged_file_of_starts_never_fails(tmp_path, now, damage):
    (tmp_path / STARTS).write_bytes(damage)
    assert duration(tmp_path, "training") in (None, "10 s")
    record_start(tmp_path, "training")  # begins a line of its own
    now[0] += 3
    last = (tmp_path / STARTS).read_bytes().splitlines()[-1]
    assert json.loads(last)["kind"] == "training"
    assert duration(tmp_path, "training").startswith("3 s")
    assert (tmp_path / STARTS).read_bytes().startswith(damage)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["eva detection train", "a b", "x=https://me:s3cret@a.org/x.pth"],
         "eva detection train 'a b' x=https://a.org/x.pth"),
        (["detection/train_net.py", "--resume"], "python detection/train_net.py --resume"),
    ],
)  # fmt: skip
def test_the_command_as_it_was_called(arguments, shown, monkeypatch):
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    assert calling_command() == shown


def test_the_commit_of_a_checkout(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert record.commit(tmp_path) == ""
    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "one")
    digest = git("rev-parse", "HEAD")[:12]
    assert record.commit(tmp_path) == f"commit {digest}"
    (tmp_path / "file").write_text("b")
    assert record.commit(tmp_path) == f"commit {digest}, modified"
    assert record.commit(tmp_path, without=[tmp_path / "file"]) == f"commit {digest}"


@pytest.mark.parametrize("content", ["NaN", "2", "-0.1", "Infinity", '"x"', "null"])
def test_a_threshold_that_is_no_score_is_not_taken(content, tmp_path):
    (tmp_path / THRESHOLD).write_text(f'{{"score_threshold": {content}}}')
    assert read_threshold(tmp_path, 0.3) == 0.3
