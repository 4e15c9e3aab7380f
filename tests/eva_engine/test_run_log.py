"""The log of a run: lines, TensorBoard, speed, the progress bar."""

import json
import logging
import math
import re
import time

import pytest
import torch

from eva_engine import report as metrics_module
from eva_engine.config import RunConfig
from eva_engine.report import RunLog, Size
from eva_engine.steps.flops import peak_flops


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


def test_speed_and_its_share_of_the_peak(make_log, tmp_path, monkeypatch, caplog):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(metrics_module, "peak_flops", lambda device: 1e12)
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
    assert first["model_flops_use"] == pytest.approx(0.12)
    assert second["samples"] == 16
    sentence = (
        r"step 4/10: loss 1, lr 0.1, 16 samples/s, \S+ GiB, 24.0% of peak FLOPs, 0:00:01 left"
    )
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


@pytest.mark.parametrize(("name", "peak"), [
    ("NVIDIA A100 80GB PCIe", 312e12), ("NVIDIA H100 80GB HBM3", 989e12),
    ("Tesla V100-SXM2-16GB", 125e12), ("NVIDIA GeForce RTX 4090", 165e12),
    ("NVIDIA RTX A1000", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ("NVIDIA H100", None), ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
])  # fmt: skip
def test_the_peak_of_a_gpu(monkeypatch, caplog, name, peak):
    """By its complete name: an RTX A1000 is not an A100."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    with caplog.at_level(logging.INFO):
        found = peak_flops(torch.device("cuda"))
    assert (None if math.isnan(found) else found) == peak
    assert caplog.messages == ([] if peak else [
        f"the peak of {name} is not known: the log has no share of it"])  # fmt: skip
