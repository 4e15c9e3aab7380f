"""The sentences that all trainers share: the step, the checkpoint, and how to go on."""

from pathlib import Path

from eva_runs.messages import RunSentences

SAYS = RunSentences(unit="iteration", resume="--resume", output="--work-dir")
FOLDER = Path("output/run")


def test_what_a_run_continues_from():
    line = SAYS.resumed(1500, 90_000, FOLDER / "iter_1500.pth")
    assert line == "resume   after iteration 1,500 of 90,000 (iter_1500.pth)"
    none = "output/run has no checkpoint to continue from: the run begins at iteration 1"
    assert SAYS.nothing_to_resume(FOLDER) == none
    finished = "output/run has a finished run: all of its 1,500 iterations are done"
    assert SAYS.finished(FOLDER, 1500) == finished


def test_a_used_folder():
    advice = ": continue it with --resume, or choose another --work-dir"
    assert SAYS.used(FOLDER) == f"output/run has a run already{advice}"
    known = SAYS.used(FOLDER, checkpoint="iter_9.pth")
    assert known == f"output/run has a run that reached iter_9.pth{advice}"


def test_what_is_saved_of_a_run_that_was_stopped():
    advice = ", and the same command with --resume"
    saved = SAYS.saved("iter_9.pth", done=9)
    assert saved == f"iteration 9 is saved (iter_9.pth){advice} continues after it"
    assert SAYS.saved("a.pth") == f"a.pth is saved{advice} continues after it"
    assert SAYS.saved("") == f"nothing is saved{advice} begins at iteration 1"
    assert SAYS.stopped("SIGTERM", saved) == f"stopped by SIGTERM: {saved}"
    assert SAYS.stopped(None, saved) == f"stopped by a signal to another process: {saved}"


def test_a_number_that_is_not_finite():
    said = SAYS.not_finite("The loss", 1500, "these images: a.jpg")
    assert said == (
        "The loss became infinite or NaN at iteration 1,500, and all processes stop before the "
        "optimizer's step: look at the learning rate, and at these images: a.jpg"
    )
