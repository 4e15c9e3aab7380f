"""The log of a run: lines, TensorBoard, speed, the progress bar."""

import json
import logging
import re
import time

import pytest
import torch

from eva_engine.config import RunConfig
from eva_engine.run_log import RunLog, Size


@pytest.fixture
def make_log(tmp_path):
    """Function: a log in `tmp_path`."""
    logs = []

    def make(*, start_step=0, flops=None, processes=1, **run):
        settings = {"output": tmp_path, "tensorboard": False, "log_every": 2} | run
        size = Size(10, 4, processes, torch.device("cpu"))
        log = RunLog(RunConfig(**settings), size, start_step=start_step, flops_per_sample=flops)
        logs.append(log)
        return log

    yield make
    for log in logs:
        log.close()


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_speed(make_log, tmp_path, monkeypatch, caplog):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    log = make_log(flops=3e10, processes=2)
    with caplog.at_level(logging.INFO):
        for step in range(2):
            now += 0.5
            log.step(step, {"loss": 1.0, "lr": 0.1})
        with log.paused():
            now += 1000  # an evaluation
        for step in range(2, 4):
            now += 0.25
            log.step(step, {"loss": 1.0, "lr": 0.1})
    first, second = (line for line in lines(tmp_path) if "eta_seconds" in line)
    assert (first["samples_per_second"], second["samples_per_second"]) == (8, 16)
    assert (first["eta_seconds"], second["eta_seconds"]) == (4.0, 1.5)
    assert first["model_tflops"] == pytest.approx(0.24)
    assert second["samples"] == 16
    sentence = r"step 4/10: loss 1, lr 0.1, 16 samples/s, \S+ GiB, 0.48 TFLOP/s, 0:00:01 left"
    assert re.search(sentence, caplog.text)


def test_tensorboard_shows_a_resumed_run_once(make_log, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = make_log(tensorboard=True, log_every=1)
    for step in range(6):
        log.step(step, {"loss": 1.0})
    log.close()
    log = make_log(tensorboard=True, log_every=1, start_step=4)
    for step in range(4, 8):
        log.step(step, {"loss": 2.0})
    log.evaluation(7, {"top1": 0.5})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        *((step, 1.0) for step in range(4)), *((step, 2.0) for step in range(4, 8)),
    ]  # fmt: skip
    assert [event.step for event in events.Scalars("val_top1")] == [7]
