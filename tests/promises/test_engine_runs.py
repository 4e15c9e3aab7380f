"""What every run of the engine promises: pre-training, classification, video and CLIP."""

import json
import os
import re
import shutil
import signal
import socket

import pytest

TASKS = ("pretrain", "classification", "video", "clip")
STOPPED = 75  # the exit code of a run that was told to stop, and saved
SCORE = {"pretrain": "cosine", "classification": "top1", "video": "top1", "clip": "top1"}


def _state(folder):
    """Content and time of every file."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _shows(text, score):
    """Whether a number of the text is this one, to three digits."""
    numbers = map(float, re.findall(r"\d+\.?\d*", text))
    return any(number == pytest.approx(score, rel=2e-3) for number in numbers)


@pytest.fixture
def start_two(start):
    """Function: start a command in two processes, as torchrun does on two machines."""

    def begin(*words, **more):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        place = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [start(*words, RANK=rank, LOCAL_RANK=rank, **place, **more) for rank in range(2)]

    return begin


@pytest.fixture
def stop(wait_for, metrics_of):
    """Function: send SIGTERM to a program once its run has logged a step."""

    def send(running, output, *, step):
        def reached():
            return running.process.poll() is not None or any(
                line["step"] >= step for line in metrics_of(output)
            )

        wait_for(reached)
        os.kill(running.process.pid, signal.SIGTERM)

    return send


@pytest.mark.parametrize("task", TASKS)
def test_a_training_leaves_scores_weights_and_a_page(
    trained, metrics_of, read_page, begins_with_first_batch, task
):
    output, ended = trained(task)
    begins_with_first_batch(output)
    lines = metrics_of(output)
    losses = [line for line in lines if "loss" in line]
    scores = [line[f"val_{SCORE[task]}"] for line in lines if f"val_{SCORE[task]}" in line]
    assert [line["step"] for line in losses] == list(range(8))
    assert len(scores) == 2
    page = read_page(output / "report.html")
    assert _shows(page.text, max(scores))
    assert _shows(ended.text, max(scores))
    assert len(page.images) >= 8
    assert all(image.startswith("data:image/") for image in page.images)
    assert page.curves >= 4
    assert ended.names(output / "report.html")
    assert (output / "log.txt").stat().st_size > 1000
    assert json.loads((output / "config.json").read_text())["run"]["epochs"] == 2


@pytest.mark.parametrize(
    "task",
    [pytest.param(task, marks=[pytest.mark.slow] * (task != "classification")) for task in TASKS],
)
def test_killed_in_a_save_and_stopped_and_continued(
    run, start, training, trained, stop, ends_alike, tmp_path, task
):
    """The end is that of a run that nobody disturbed, bit for bit, with other data workers too."""
    output = tmp_path / "run"
    words = training(task, output)
    run(*words, accident="rename:step_00000004", code=-signal.SIGKILL)
    complete = [path.name for path in (output / "checkpoints").glob("step_*")]
    assert complete == ["step_00000002"]
    running = start(*words)
    stop(running, output, step=4)
    assert running.wait().code == STOPPED
    run(*words, "--run.workers", 2 if task == "classification" else 0)
    ends_alike(trained(task)[0], output)
    assert "in 3 starts" in (output / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_stopped_and_continued(
    start_two, training, trained, stop, ends_alike, metrics_of, tmp_path, task
):
    """The signal reaches one of them alone; both stop after the same step.

    Where nothing is drawn on the device, two processes give what one gives.
    """
    half = ("--run.batch-size", {"pretrain": 2, "classification": 12, "video": 4, "clip": 12}[task])
    whole, output = tmp_path / "whole", tmp_path / "run"
    assert [one.wait().code for one in start_two(*training(task, whole, *half))] == [0, 0]
    two = start_two(*training(task, output, *half))
    stop(two[1], output, step=2)
    assert [one.wait().code for one in two] == [STOPPED] * 2
    assert [one.wait().code for one in start_two(*training(task, output, *half))] == [0, 0]
    ends_alike(whole, output)
    if task == "pretrain":
        one, both = (
            [line["loss"] for line in metrics_of(folder) if "loss" in line]
            for folder in (trained(task)[0], whole)
        )
        assert both == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_the_program_of_a_checkout_has_the_same_settings(run, training, root, tmp_path, task):
    """A recipe by its path is the recipe by its name."""
    name = training(task, tmp_path)[3]
    words = ("--run.epochs", 7, "--run.output", tmp_path / "run", "--print-config")
    ours = run("eva", task, "train", name, *words)
    program, recipe = root / task / "train.py", root / task / f"configs/{name}.py"
    assert run("python", program, recipe, *words).out == ours.out
    assert "7" in ours.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", TASKS)
def test_an_output_folder_that_is_used_is_refused(run, fails, training, trained, task):
    """By the first process, where there are several."""
    output, _ = trained(task)
    before = _state(output)
    words = training(task, output, "--run.no-resume")
    fails(run(*words, code=None), output)
    other = run(*words, code=None, RANK=1, LOCAL_RANK=1, WORLD_SIZE=2)
    assert (other.code, other.text) == (1, "")
    assert _state(output) == before


@pytest.mark.parametrize(
    ("task", "setting", "value"),
    [
        *((task, "--run.epoch", "3") for task in TASKS),
        ("video", "--run.epochs", "many"),
        ("pretrain", "--run.epochs", "0"),
    ],
)
def test_a_wrong_setting_is_named(run, fails, training, tmp_path, task, setting, value):
    ended = run(*training(task, tmp_path / "run", setting, value), code=2)
    fails(ended, setting.removeprefix("--run.") if value == "0" else setting, code=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", TASKS)
def test_data_that_are_not_there_are_named(run, fails, training, tmp_path, task):
    nowhere = tmp_path / "nowhere"
    fails(run(*training(task, tmp_path / "run", "--data.train", nowhere), code=None), nowhere)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", TASKS)
def test_a_loss_that_is_not_finite_ends_the_run_before_the_step(
    run, fails, training, metrics_of, tmp_path, task
):
    output = tmp_path / "run"
    words = training(task, output, "--run.epochs", 1)
    fails(run(*words, accident="nan@1", code=None))
    assert len(metrics_of(output)) <= 2
    assert not [*output.glob("checkpoints/step_*")]


@pytest.fixture
def copied(trained, tmp_path):
    """Function: a copy of a trained run with its newest checkpoints alone, oldest first."""

    def copy(task, *, keep):
        output = tmp_path / "run"
        shutil.copytree(trained(task)[0], output)
        steps = sorted(output.glob("checkpoints/step_*"))
        for step in steps[:-keep]:
            shutil.rmtree(step)
        return output, steps[-keep:]

    return copy


def _flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(run, fails, training, copied):
    output, (last,) = copied("pretrain", keep=1)
    _flip(last / "model.safetensors")
    before = _state(last)
    fails(run(*training("pretrain", output), code=None), output, last.name)
    assert _state(last) == before


def test_two_runs_in_one_folder(run, start, fails, training, wait_for, metrics_of, tmp_path):
    output = tmp_path / "run"
    first = start(*training("pretrain", output))
    wait_for(lambda: metrics_of(output))
    fails(run(*training("pretrain", output), code=None), output)
    assert first.wait().code == 0


def test_a_lost_process_ends_the_other(start_two, training, wait_for, metrics_of, tmp_path):
    output = tmp_path / "run"
    words = training("pretrain", output, "--run.batch-size", 2, "--run.epochs", 100)
    two = start_two(*words)
    wait_for(lambda: metrics_of(output))
    os.kill(two[1].process.pid, signal.SIGKILL)
    ended = two[0].wait(timeout=60)
    assert ended.code not in (0, STOPPED)
    assert ended.names("process 0 lost the connection")
    assert not ended.names("pair.cc")
