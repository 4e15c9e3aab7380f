"""A run loses its folder or its memory, or meets a pipe in place of a log."""

import os
import shutil

import pytest

ENGINE = "classification"
slow = pytest.mark.slow
OTHERS = ("segmentation", "mmdetection")  # on mmengine, whose shell is that of all trainers
TRAINERS = (ENGINE, "detection", *(pytest.param(name, marks=slow) for name in OTHERS))
LOGS = {ENGINE: "log.txt", "detection": "log.txt", "segmentation": "log.txt"}
METRICS = {ENGINE: "metrics.jsonl", "detection": "metrics.json", "segmentation": "starts.jsonl"}


@pytest.fixture
def train(run, trainers):
    """Function: run the training of a task in an output folder."""

    def begin(task, output, *more, timeout=90, **keywords):
        words, variables = trainers(task).command(output, *more), trainers(task).variables
        return run(*words, code=None, timeout=timeout, **keywords, **variables)

    return begin


@pytest.mark.parametrize("task", TRAINERS)
@pytest.mark.parametrize("accident", ["remove", pytest.param("move", marks=slow)])
def test_a_run_whose_folder_is_gone_ends_with_an_error(train, fails, tmp_path, task, accident):
    output = tmp_path / "run"
    fails(train(task, output, accident=f"{accident}@2:{output}"), output, code=1)


@pytest.mark.parametrize("task", ["detection", pytest.param("segmentation", marks=slow)])
def test_a_run_whose_folder_is_gone_after_its_last_step(train, fails, tmp_path, task):
    output = tmp_path / "run"
    fails(train(task, output, accident=f"move@6:{output}"), output, code=1)


@pytest.mark.parametrize("task", TRAINERS)
def test_a_full_gpu_names_what_takes_less(train, fails, tmp_path, task):
    ended = train(task, tmp_path / "run", accident="memory@2")
    fails(ended, "--batch", "checkpointing", "--lora", "eva plan", code=1)
    assert "unexpected" not in ended.text


@pytest.mark.parametrize(
    "size", [pytest.param("4k", id="semaphores", marks=slow), pytest.param("128k", id="tensors")]
)
@pytest.mark.parametrize("task", TRAINERS)
def test_full_shared_memory_is_named_alone(train, trainers, fails, tmp_path, task, size):
    workers = f"{trainers(task).workers}1"
    ended = train(task, tmp_path / "run", workers, accident=f"shm:{size}")
    if "Operation not permitted" in ended.text:
        pytest.skip("no namespaces for users")
    fails(ended, "/dev/shm", code=1)
    assert "Exception ignored" not in ended.text, ended.text


@pytest.mark.parametrize(
    "names", [pytest.param(LOGS, id="log"), pytest.param(METRICS, id="metrics", marks=slow)]
)
@pytest.mark.parametrize("task", TRAINERS[:3])
def test_a_pipe_in_place_of_a_log(train, fails, tmp_path, task, names):
    output = tmp_path / "run"
    output.mkdir()
    os.mkfifo(output / names[task])
    fails(train(task, output, timeout=30), output / names[task], code=1)
    assert [path.name for path in output.iterdir()] == [names[task]]


@pytest.mark.parametrize(
    "task",
    [
        "pretrain",
        *(pytest.param(t, marks=slow) for t in ("segmentation", "detection", "mmdetection")),
    ],
)
def test_a_refused_resume_leaves_config_and_logs_as_they_were(
    start_ranks, trainers, finished, task, tmp_path
):
    """Three processes cannot share the steps of one."""
    output, trainer = shutil.copytree(finished(task), tmp_path / "run"), trainers(task)
    more = ("--run.epochs", 3) if task == "pretrain" else ("--resume",)
    more += ("--launcher", "pytorch") if trainer.output == "--work-dir " else ()
    settings = {
        path: path.read_text() for end in ("py", "yaml") for path in output.glob(f"*.{end}")
    }
    before = {path.name for path in output.iterdir()}
    words = trainer.command(output, *more, steps=8)
    ends = [one.wait() for one in start_ranks(words, words, words, **trainer.variables)]
    assert [end.code for end in ends] == [1] * 3
    assert "3 processes" in "".join(end.text for end in ends)
    assert {path.name for path in output.iterdir()} == before
    assert all(path.read_text() == content for path, content in settings.items())
