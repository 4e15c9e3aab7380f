"""What reaches the terminal of a program, and what its log alone."""

import logging
import sys
import warnings

import pytest
from mmengine.logging import MMLogger

from eva_openmmlab.terminal import output
from eva_openmmlab.terminal.hook import TerminalHook
from eva_openmmlab.terminal.scores import best_before, score_lines, short_scores
from eva_report.terminal import SHOWN

OURS = logging.getLogger("eva_openmmlab.somewhere")


@pytest.fixture
def mmlogger():
    """A logger as mmengine makes it for a run."""
    return MMLogger("of_a_run", log_level="INFO")


def prints(module, text):
    """Print as code of a module does."""
    exec(f"print({text!r})", {"__name__": module})


@pytest.mark.filterwarnings("default")
def test_the_terminal_has_what_is_said_and_the_log_everything(tmp_path, mmlogger, capsys):
    before = [*logging.getLogger().handlers], sys.stdout, OURS.level
    with output.quiet() as shown:
        OURS.info("early")
        output.take(mmlogger)
        shown.write_to(tmp_path / "run")
        mmlogger.info("\x1b[31mConfig\x1b[0m")
        mmlogger.warning("The prefix is not set in metric class X.")
        for number in range(4):
            mmlogger.warning("a folder is %d", number)
            mmlogger.warning("%s", ["a", "b", "c", "d"][number])
        OURS.info("said", extra=dict(SHOWN))
        prints("pycocotools.coco", "index created!")
        prints("my_module", "mine")
        warnings.warn("torch.meshgrid: in an upcoming release", stacklevel=1)
        warnings.warn("This DataLoader will create 9 worker processes", stacklevel=1)
        for _ in range(2):
            warnings.warn_explicit("too slow", UserWarning, "/home/me/heads.py", 7, registry={})
    found = capsys.readouterr()
    assert found.out == "mine\n"
    assert found.err.splitlines() == [
        *("warning: a folder is 0", "warning: a", "warning: a folder is 1", "warning: b"),
        *("warning: c", "warning: d", "said"),
        "warning: This DataLoader will create 9 worker processes",
        "warning: UserWarning: too slow (heads.py, line 7)",
    ]
    text = (tmp_path / "run" / "log.txt").read_text()
    kept = ("early", ": Config\n", "The prefix", "is 3", "said", "index created!", "meshgrid")
    assert all(part in text for part in kept)
    assert "\x1b" not in text
    assert "mine" not in text
    assert ([*logging.getLogger().handlers], sys.stdout, OURS.level) == before


def test_the_log_goes_on_after_a_restart_and_other_processes_are_silent(
    tmp_path, mmlogger, capsys, monkeypatch
):
    for rank in ("0", "1", "0"):
        monkeypatch.setenv("RANK", rank)
        with output.quiet() as shown:
            output.take(mmlogger)
            shown.write_to(tmp_path)
            shown.say([f"a line of {rank}"])
            mmlogger.warning("a warning of %s", rank)
            mmlogger.handlers.clear()
    assert capsys.readouterr().err.splitlines() == ["a line of 0", "warning: a warning of 0"] * 2
    assert (tmp_path / "log.txt").read_text().count("a line of 0") == 2
    assert "of 1" not in (tmp_path / "log.txt").read_text()


def test_without_a_program_mmengines_logger_stays_as_it_is(tmp_path, mmlogger):
    before = [*mmlogger.handlers]
    output.take(mmlogger)
    assert mmlogger.handlers == before
    assert output.log_file(tmp_path) is None


@pytest.mark.parametrize(
    ("metrics", "lines", "short"),
    [
        (
            {"aAcc": 54.2, "mIoU": 24.39, "mAcc": 47.97, "time": 0.8},
            ["mIoU 24.39, mAcc 47.97, aAcc 54.20"],
            "mIoU 24.39, mAcc 47.97",
        ),
        (
            {"coco/bbox_mAP": 0.048, "coco/bbox_mAP_50": 0.101, "coco/bbox_mAP_s": -1.0,
             "coco/segm_mAP": float("nan")},
            ["box AP 4.8, AP50 10.1", "mask AP -"],
            "box AP 4.8, AP50 10.1; mask AP -",
        ),
        ({"lvis/bbox_AP": 0.3, "lvis/bbox_APr": 0.2}, ["box AP 30.0, APr 20.0"],
         "box AP 30.0, APr 20.0"),
        ({"my/score": 3, "data_time": 2.0}, ["my/score 3"], "my/score 3"),
        ({}, [], ""),
    ],
)  # fmt: skip
def test_scores_are_a_few_words(metrics, lines, short):
    assert score_lines(metrics) == lines
    assert short_scores(metrics) == short


@pytest.mark.parametrize(
    ("metric", "score", "found"),
    [
        ("mIoU", 71.5, ("mIoU 71.50", "best_iter_40.pth")),
        ("coco/bbox_mAP", 0.415, ("box AP 41.5", "best_iter_40.pth")),
    ],
)
def test_the_best_weights_where_the_last_were_worse(metric, score, found):
    info = {"best_score": score, "best_ckpt": "run/best_iter_40.pth"}
    assert best_before(info, metric=metric, iteration=60) == found
    assert best_before(info, metric=metric, iteration=40) == ("", "")
    assert best_before({}, metric=metric, iteration=40) == ("", "")


def test_a_run_without_an_evaluation_says_nothing_of_scores():
    hook = TerminalHook(output.Output(), recipe="mine")
    assert hook.score_lines() == []
    hook.after_test_epoch(None, {})
    assert hook.score_lines() == ["no scores, since nothing was found"]
