"""The best weights of a run: which are kept, and what happens when it is killed or continued."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from eva_backbone.checkpoints.run_folders import weights_of_run
from eva_engine import loop
from eva_engine.checkpoints import files as best_weights

EVERY = {"ema_decay": 0.9, "keep_checkpoints": 9, "resume": True}
NAN = float("nan")


class Results:
    """An evaluation that gives prescribed results: for the weights, then for their average."""

    def __init__(self, **results):
        self.rows = [dict(zip(results, row, strict=True)) for row in zip(*results.values())]  # noqa: B905

    def __call__(self, model, stop):
        return self.rows.pop(0)


def twice(values):
    """The same results for the average as for the weights."""
    return [value for value in values for _ in range(2)]


@pytest.fixture
def run(start, tmp_path):
    """Function: three epochs of 8 steps with prescribed results; the folder."""

    def train(metric="score", *, output="run", results=("loss", "score"), **rows):
        rows = {name: twice(values) for name, values in rows.items()}
        changes = {"evaluate": Results(**rows), "results": results}
        start(output, changes=changes, best_metric=metric, **EVERY)
        return tmp_path / output

    return train


def assert_kept(folder, step, *, files=("model.safetensors", "model_ema.safetensors")):
    """`best` holds what the checkpoint after that step holds."""
    record = json.loads((folder / "best/best.json").read_text())
    for name in files:
        assert record[name]["step"] == step
        kept = load_file(folder / "best" / name)
        expected = load_file(folder / f"checkpoints/step_{step + 1:08}" / name)
        assert kept.keys() == expected.keys()
        assert all(torch.equal(kept[key], value) for key, value in expected.items())
    assert len(list((folder / "best").iterdir())) == 3
    return record


@pytest.mark.parametrize(
    ("metric", "values", "step"),
    [
        ("score", (1.0, 3.0, 2.0), 15),
        ("score", (3.0, 3.0, NAN), 15),  # of equals that of the least loss
        ("loss", (NAN, 1.0, 2.0), 15),
        ("loss", (1.0, 1.0, 2.0), 15),  # of equals the later
    ],
)
def test_the_best_of_all_evaluations(run, metric, values, step):
    other = "loss" if metric == "score" else "score"
    folder = run(metric, **{metric: values, other: (9.0, 8.0, 7.0)})
    record = assert_kept(folder, step)
    assert record["model.safetensors"]["results"][metric] == values[step // 8]


def test_the_average_has_a_best_of_its_own(start, tmp_path):
    """Weights 1, 3, 2; their average 1, 2, 3."""
    changes = {"evaluate": Results(score=(1.0, 1.0, 3.0, 2.0, 2.0, 3.0)), "results": ("score",)}
    start(changes=changes, best_metric="score", **EVERY)
    assert_kept(tmp_path / "run", 15, files=["model.safetensors"])
    assert_kept(tmp_path / "run", 23, files=["model_ema.safetensors"])


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (best_weights, "save_weights", 4),  # of the second evaluation: the average
        (best_weights, "write_text", 6),
        (loop.TrainingRun, "_evaluate", 2),
    ],
)
def test_killed_around_the_second_evaluation(run, killed, owner, name, call):
    """In the middle of writing, or before it: the continued run makes up for it."""
    with killed(owner, name, call):
        run(loss=(3.0, 2.0), score=(1.0, 2.0))
    assert_kept(run(loss=(2.0, 1.0), score=(2.0, 1.5)), 15)


@pytest.mark.parametrize(
    ("owner", "name", "step"),
    [(best_weights, "save_weights", 7), (best_weights.BestWeights, "_write", 15)],
)
def test_a_kill_while_the_next_best_are_written_loses_no_best(run, killed, owner, name, step):
    """Before the file takes its name, or between it and the record; later steps are worse."""
    with killed(owner, name, call=3):
        run(loss=(3.0, 2.0), score=(1.0, 2.0))
    folder = run(loss=(9.0, 9.0, 3.0), score=(0.5, 0.5, 1.0))
    record = json.loads((folder / "best/best.json").read_text())
    assert record["model.safetensors"]["step"] == step
    assert len(load_file(folder / "best/model.safetensors"))


def test_a_continued_run_remembers_the_best(run, start, tmp_path):
    """And evaluates them at its end, for the page."""
    folder = run(loss=(1.0, 2.0, 3.0), score=(1.0, 2.0, 0.0))
    stamp = (folder / "best/best.json").stat().st_mtime_ns
    seen, values = [], [*twice((1.5, 1.9)), 2.0]

    def evaluate(engine, stop):
        seen.append({key: value.clone() for key, value in engine.module.state_dict().items()})
        return {"score": values[len(seen) - 1]}

    changes = {"evaluate": evaluate, "results": ("score",)}
    start("run", changes=changes, best_metric="score", epochs=5, **EVERY)
    assert (folder / "best/best.json").stat().st_mtime_ns == stamp
    assert_kept(folder, 15)
    assert len(seen) == len(values)
    best = load_file(weights_of_run(folder))
    assert all(torch.equal(seen[-1][name], value) for name, value in best.items())


@pytest.mark.parametrize("lost", [False, True])
def test_the_best_scores_are_those_of_the_weights_that_the_folder_stands_for(
    start, tmp_path, caplog, lost
):
    """Of equal scores the average has them; a checkpoint that is lost leaves better ones behind."""
    caplog.set_level("INFO")
    settings = {"best_metric": "score", **EVERY}
    rows = {"score": (1.0, 1.0, 2.0, 2.0, 9.0, 9.0), "loss": (3.0, 4.25) * 3}
    start(changes={"evaluate": Results(**rows), "results": ("score", "loss")}, **settings)
    if lost:
        shutil.rmtree(tmp_path / "run/checkpoints/step_00000024")
        again = {name: values[:4] for name, values in rows.items()}
        start(changes={"evaluate": Results(**again), "results": ("score", "loss")}, **settings)
    assert weights_of_run(tmp_path / "run").name == "model_ema.safetensors"
    *_, best = (message for message in caplog.messages if message.startswith("best   "))
    assert re.findall(r"[\d.]+", best)[:2] == ["9", "4.25"]
