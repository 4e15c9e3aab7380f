"""The quick start: one folder, one run; an interruption costs what was not saved."""

import signal
import sys
import time
from pathlib import Path

import pytest

from eva_detection import quickstart
from eva_runs.recipes import find_recipe


def test_other_settings_are_refused_once_something_is_saved(tmp_path):
    quickstart._claim(tmp_path, ["train.seed=0", "train.max_itr=9"])  # a slip: nothing begins
    quickstart._claim(tmp_path, ["train.seed=0", "train.max_iter=9"])
    (tmp_path / "model_0000004.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
    before = (tmp_path / "quickstart.json").read_bytes()
    message = r"train\.seed=0 train\.max_iter=9.*train\.seed=1: .* --fresh"
    with pytest.raises(ValueError, match=message):
        quickstart._claim(tmp_path, ["train.seed=1"])
    assert (tmp_path / "quickstart.json").read_bytes() == before


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="--output"):
        quickstart._claim(tmp_path, ["train.seed=0"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def _run_main(monkeypatch, repository, *arguments):
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *map(str, arguments)])

    def nothing_may_start(*command, **options):
        raise AssertionError("a step was started")

    monkeypatch.setattr(quickstart, "run_step", nothing_may_start)
    quickstart.main(repository=repository)


def test_fresh_deletes_an_earlier_quick_start(monkeypatch, repository, tmp_path):
    quickstart._claim(tmp_path, ["train.seed=7"])
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(AssertionError, match="a step was started"):
        _run_main(monkeypatch, repository, "--fresh", "--output", tmp_path)
    assert not (tmp_path / "results.json").exists()


def test_without_a_checkout_the_steps_are_modules(monkeypatch, tmp_path):
    """As in an installed package: results lie in the current folder, the recipe has a name."""
    commands = []

    def succeed(command, **options):
        commands.append(command)
        assert options["folder"] == tmp_path
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "_ABOVE", tmp_path)
    monkeypatch.setattr(quickstart, "run_step", succeed)
    quickstart.main([])
    assert [command[1] for command in commands] == ["-c", "-c"]
    for command in commands:
        exec(command[2].partition(";")[0], {})  # the function is there
    assert f"train.output_dir={tmp_path / 'output' / 'quickstart'}" in commands[1]
    assert find_recipe("detection", commands[1][commands[1].index("--config-file") + 1]).is_file()


@pytest.fixture
def begin(start, repository, tiny_overrides, tmp_path):
    """Function: start a tiny quick start (the demo data is complete, made in seconds)."""
    program = str(repository / "detection" / "quickstart.py")
    folders = ("--output", str(tmp_path / "run"), "--datasets", str(tmp_path / "datasets"))
    overrides = (*tiny_overrides, "train.max_iter=30", "train.checkpointer.period=5")
    return lambda: start(program, *folders, *overrides)


def _is_running(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_terminating_it_ends_its_step(begin, tmp_path):
    """Else the step goes on alone, and the same command starts a second one beside it."""
    process = begin()
    step = None
    for _ in range(60_00):
        step = next((tmp_path / "datasets").glob(".digit_scenes.partial-*"), None)
        if step is not None:
            break
        time.sleep(0.01)
    pid = int(step.name.rpartition("-")[2])
    assert _is_running(pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) != 0
    for _ in range(500):
        if not _is_running(pid):
            return
        time.sleep(0.01)
    raise AssertionError("the step still runs five seconds later")
