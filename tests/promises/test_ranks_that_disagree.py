"""Two processes whose command lines differ: refused before the first step, with both values."""

import socket

import pytest

ENGINE = {  # setting -> its values on the two processes
    "run.batch_size": (12, 6),
    "run.checkpoint_every": (2, 3),
    "run.seed": (1, 2),
    "augment.mixup": (0.25, 0.75),
    "optimizer.lr": (0.125, 0.25),
}
FRAMEWORKS: dict[str, dict[str, tuple[float, float]]] = {
    "detection": {
        "dataloader.train.total_batch_size": (2, 4),
        "train.seed": (3, 4),
        "train.checkpointer.period": (3, 2),
    },
    "segmentation": {
        "train_dataloader.batch_size": (2, 1),
        "optim_wrapper.optimizer.lr": (0.125, 0.25),
        "default_hooks.checkpoint.interval": (3, 2),
    },
    "mmdetection": {"randomness.seed": (3, 4)},
}
CASES = [("classification", name) for name in ENGINE]
CASES += [(task, name) for task, settings in FRAMEWORKS.items() for name in settings]
QUICK = ("run.batch_size", "dataloader.train.total_batch_size", "train_dataloader.batch_size")


@pytest.fixture
def start_ranks(start):
    """Function: start command lines, one for each process of a run."""

    def begin(*commands, **variables):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        shared = {"WORLD_SIZE": len(commands), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            start(*words, RANK=rank, LOCAL_RANK=rank, **shared, **variables)
            for rank, words in enumerate(commands)
        ]

    return begin


@pytest.fixture
def command(training, trainers):
    """Function: the command of a task with settings of a process, and its variables."""

    def words(task, output, *settings):
        if task == "classification":
            return training(task, output, "--run.batch-size", 12, *settings), {}
        trainer = trainers(task)
        more = () if task == "detection" else ("--launcher", "pytorch")
        return trainer.command(output, *more, *settings), trainer.variables

    return words


@pytest.mark.parametrize(
    ("task", "name"),
    [pytest.param(*one, marks=[] if one[1] in QUICK else [pytest.mark.slow]) for one in CASES],
)
def test_another_setting_on_one_process_is_named_with_both_values(
    start_ranks, command, tmp_path, task, name
):
    output = tmp_path / "run"
    values = (ENGINE if task == "classification" else FRAMEWORKS[task])[name]
    lines = [command(task, output, f"{name}={value}") for value in values]
    ends = [one.wait(60) for one in start_ranks(*(words for words, _ in lines), **lines[0][1])]
    assert [end.code for end in ends] == [1, 1], [end.text for end in ends]
    assert sum(end.names(name, *values) for end in ends) == 1, [end.text for end in ends]
    assert not any("Traceback" in end.text for end in ends)
    assert not output.exists()


def test_values_of_a_machine_may_differ(start_ranks, command, tmp_path):
    settings = (("--run.workers", 1, "--run.device", "cpu"), ("--run.device", "auto"))
    lines = [command("classification", tmp_path / "run", *more)[0] for more in settings]
    assert [one.wait().code for one in start_ranks(*lines)] == [0, 0]
