"""Two processes whose command lines differ: refused before the first step, with both values."""

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
def command(trainers):
    """Function: the command of a task with settings of a process."""

    def words(task, output, *settings):
        first = {"classification": ("--run.batch-size", 12), "detection": ()}
        launcher = ("--launcher", "pytorch")
        return trainers(task).command(output, *first.get(task, launcher), *settings)

    return words


@pytest.mark.parametrize(
    ("task", "name"),
    [pytest.param(*one, marks=[] if one[1] in QUICK else [pytest.mark.slow]) for one in CASES],
)
def test_another_setting_on_one_process_is_named_with_both_values(
    start_ranks, command, trainers, tmp_path, task, name
):
    output = tmp_path / "run"
    values = (ENGINE if task == "classification" else FRAMEWORKS[task])[name]
    commands = [command(task, output, f"{name}={value}") for value in values]
    ranks = start_ranks(*commands, **trainers(task).variables)
    ends = [running.wait(60) for running in ranks]
    assert [end.code for end in ends] == [1, 1], [end.text for end in ends]
    assert sum(end.names(name, *values) for end in ends) == 1, [end.text for end in ends]
    assert not any("Traceback" in end.text for end in ends)
    assert not output.exists()


@pytest.mark.slow
def test_values_of_a_machine_may_differ(start_ranks, command, tmp_path):
    settings = (("--run.workers", 1, "--run.device", "cpu"), ("--run.device", "auto"))
    commands = [command("classification", tmp_path / "run", *more) for more in settings]
    assert [running.wait().code for running in start_ranks(*commands)] == [0, 0]
