"""Runs that are killed, stopped, continued, or meet bad data: as programs where signals matter."""

import signal

import pytest

from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.training import train as train_module
from eva_detection.training.output_folder import read_metrics


@pytest.fixture(autouse=True)
def _default_signals():
    """A run that was stopped goes on ignoring signals, as its process is about to end."""
    yield
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def configure(tiny_config, tmp_path, monkeypatch):
    """Function: the tiny config with its output in the test's folder; nothing is evaluated."""
    monkeypatch.setattr(EvaluationSet, "score", lambda test_set, model, **_: {})

    def make(*more, name="run"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return tiny_config(f"train.output_dir={folder}", *more), folder

    return make


def _send_at(monkeypatch, iteration, number=signal.SIGTERM):
    """The process gets a signal in one step."""
    run_step = train_module.DetectionTrainer.run_step

    def interrupted(trainer):
        if trainer.iter == iteration:
            signal.raise_signal(number)
        run_step(trainer)

    monkeypatch.setattr(train_module.DetectionTrainer, "run_step", interrupted)


def test_a_signal_in_the_last_step_leaves_only_the_evaluation(
    configure, registered_demo_data, train_here, monkeypatch
):
    cfg, run = configure("train.max_iter=2")
    evaluated = []
    monkeypatch.setattr(
        EvaluationSet, "score", lambda test_set, model, **_: evaluated.append(1) or {}
    )
    with monkeypatch.context() as patch:
        _send_at(patch, 1)
        with pytest.raises(SystemExit):
            train_here(cfg)
    assert not evaluated
    assert (run / "last_checkpoint").read_text() == "model_final.pth"
    assert [entry["iteration"] for entry in read_metrics(run)] == [0, 1]
    train_here(cfg, resume=True)
    assert evaluated == [1]
