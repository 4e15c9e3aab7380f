"""Trainings on a framework are stopped, killed, diverge and continue: the end is the same.

docs/reliability.md has what is promised. Everything happens to one run of six steps, which saves
after each third one.
"""

import json
import re
import shutil
from itertools import chain
from types import SimpleNamespace

import pytest
import torch

# the runs of segmentation and mmdetection stand on the same hooks
TRAINERS = ("detection", pytest.param("mmdetection", marks=pytest.mark.slow), "segmentation")


def last(output):
    """Name of the checkpoint that a run would continue from."""
    return (output / "last_checkpoint").read_text().rpartition("/")[2]


def logged(output):
    """Numbers of each line of a run's logs that are no times."""
    files = [*output.glob("metrics.json"), *sorted(output.glob("*/vis_data/scalars.json"))]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [
        {key: line[key] for key in sorted(line) if not re.search("time|eta|memory", key)}
        for line in lines
    ]


@pytest.fixture(scope="module", params=TRAINERS)
def trainer(request, trainers):
    return trainers(request.param)


@pytest.fixture(scope="module")
def story(trainer, run, tmp_path_factory):
    """One run with all accidents: how each start ended and what was then the last checkpoint."""
    output = tmp_path_factory.mktemp("story") / "run"
    ends = {}

    def begin(name, *more, **accident):
        words = trainer.command(output, *more)
        end = run(*words, code=None, **accident, **trainer.variables)
        ends[name] = SimpleNamespace(end=end, last=last(output))

    begin("stopped", accident="SIGTERM@1")
    begin("killed in a save", "--resume", accident=f"rename:{trainer.checkpoint(3)}")
    begin("diverged", "--resume", accident="nan@3")
    begin("interrupted", "--resume", accident="SIGINT@1")
    begin("continued", "--resume")
    return SimpleNamespace(
        output=output, **{key.replace(" ", "_"): end for key, end in ends.items()}
    )


def test_sigterm_saves_after_the_step_and_asks_to_be_run_again(story, trainer):
    assert story.stopped.end.code == 75, story.stopped.end.text
    assert "Traceback" not in story.stopped.end.text
    assert story.stopped.last not in {trainer.checkpoint(step) for step in (3, 4, 5, 6)}


def test_a_kill_inside_a_save_leaves_the_checkpoint_before(story):
    assert story.killed_in_a_save.end.code == -9, story.killed_in_a_save.end.text
    assert story.killed_in_a_save.last == story.stopped.last


def test_a_loss_that_is_not_finite_ends_the_run_before_the_step(story, trainer, fails):
    fails(story.diverged.end, ".jpg")
    assert story.diverged.end.code not in (75, 130)
    assert story.diverged.last == trainer.checkpoint(3)


def test_ctrl_c_saves_after_the_step_and_asks_to_be_run_again(story, trainer, fails):
    fails(story.interrupted.end, "Ctrl-C", story.interrupted.last, code=75)
    assert story.interrupted.last not in {trainer.checkpoint(step) for step in (3, 6)}


def test_the_end_equals_that_of_an_undisturbed_run_bit_for_bit(story, trainer, finished):
    assert story.continued.end.code == 0, story.continued.end.text
    expected, ours = (trainer.weights(folder) for folder in (finished(trainer.name), story.output))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    for read in (logged, lambda folder: json.loads((folder / "results.json").read_text())):
        assert str(read(story.output)) == str(read(finished(trainer.name)))


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["detection", "mmdetection", "segmentation"], indirect=True)
def test_two_processes_stop_together_at_ctrl_c_and_continue(trainer, run, tmp_path):
    def train(name, *more, torchrun=False, **keywords):
        own = trainer.name == "detection" and not torchrun  # which has a launcher of its own
        more = [*more, "--num-gpus", 2, "--dist-url", "auto"] if own else more
        words = trainer.command(tmp_path / name, *more, steps=5, period=5)
        if not own:
            words = ["torchrun", "--nproc-per-node", 2, "-m", "eva_command", *words[1:]]
        return run(*words, **keywords, **trainer.variables)

    train("whole")
    end = train("stopped", accident="SIGINT@2!/1", code=None)
    assert end.code == (75 if trainer.name == "detection" else 1), end.text
    train("stopped", "--resume", torchrun=True)
    expected, ours = (trainer.weights(tmp_path / name, 5) for name in ("whole", "stopped"))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    ["forward@2/1", "all-reduce@3/0", "save@2/0", "worker@1/1", "forward@3/0,resume@1/1"],
)
@pytest.mark.parametrize("trainer", ["detection", "segmentation"], indirect=True)
def test_torchrun_restarts_after_a_kill_anywhere(trainer, place, run, once, tmp_path):
    """The end is that of a run that nobody disturbed."""
    more = {"detection": ["dataloader.train.num_workers=1", "dataloader.train.total_batch_size=3"]}
    more = more.get(trainer.name, ["train_dataloader.num_workers=1"])

    def train(folder, **keywords):
        words = trainer.command(folder, "--resume", *more, steps=4, period=1)
        run(
            "torchrun", "--nproc-per-node", 3, "--max-restarts", 3, "-m", "eva_command", *words[1:],
            **keywords, **trainer.variables,
        )  # fmt: skip
        return trainer.weights(folder, 4)

    expected = train(once(f"three_processes_{trainer.name}", lambda folder: None) / "run")
    notes = {one: tmp_path / one.partition("@")[0] for one in place.split(",")}
    accident = ",".join(f"{one}:{note}" for one, note in notes.items())
    ours = train(tmp_path / "run", accident=accident)
    assert all(note.exists() for note in notes.values()), "nothing was killed"
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["detection", "mmdetection", "segmentation"], indirect=True)
def test_other_numbers_of_processes_see_the_same_images_in_the_same_steps(trainer, run, tmp_path):
    six = {"detection": "dataloader.train.total_batch_size=6"}
    size = six.get(trainer.name, "train_dataloader.batch_size=3")

    def train(name, processes, *more, accident="", **keywords):
        """Take steps; return the images of each."""
        folder, notes = tmp_path / name, tmp_path / f"{len([*tmp_path.iterdir()])}.jsonl"
        words = trainer.command(folder, size, *more, period=1, processes=processes)
        if trainer.name == "detection" and processes > 1:  # whose own launcher knows no accidents
            words = [word for word in words if str(word) not in ("--dist-url", "auto")]
            at = words.index("--num-gpus")
            words = words[:at] + words[at + 2 :]
            words = ["torchrun", "--nproc-per-node", processes, "-m", "eva_command", *words[1:]]
        end = run(*words, accident=f"images:{notes}{accident}", **keywords, **trainer.variables)
        steps = {}
        for rank, images in map(
            json.loads, notes.read_text().splitlines() if notes.exists() else ()
        ):
            steps.setdefault(rank, []).append(images[-6 // processes :])
        return end, [sorted(chain(*step)) for step in zip(*steps.values(), strict=True)]

    _, whole = train("whole", 2)
    _, seen = train("run", 2, accident=",SIGKILL@3!", code=None)
    assert seen == whole[:3]
    done = int(re.sub(r"\D", "", last(tmp_path / "run"))) + (trainer.name == "detection")
    end, seen = train("run", 1, "--resume", accident=",SIGTERM@2", code=75)
    assert end.names("on 1 processes, began with 2"), end.text
    assert 2 <= len(seen) <= 3
    assert seen == whole[done : done + len(seen)]
    done += len(seen)
    end, seen = train("run", 4, "--resume", code=None)
    assert not seen
    assert end.names("4 processes", "6 samples", "1, 2, 3, 6"), end.text
    _, seen = train("run", 3, "--resume")
    assert seen == whole[done:]


@pytest.mark.parametrize(
    "trainer",
    [
        "segmentation",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mmdetection", "detection")),
    ],
    indirect=True,
)
def test_a_loss_that_is_not_finite_on_one_of_two_processes(trainer, run, tmp_path):
    words = trainer.command(tmp_path / "run", steps=3, period=3, processes=2)
    end = run(*words, accident="nan@1/1", code=None, **trainer.variables)
    assert end.code == 1
    assert end.names("process 1", ".jpg"), end.text
    assert not end.names("process 0"), end.text


@pytest.mark.parametrize("trainer", TRAINERS[1:], indirect=True)
def test_a_start_after_a_kill_before_the_first_checkpoint_logs_alone(
    trainer, finished, run, tmp_path
):
    words = trainer.command(tmp_path / "run")
    run(*words, accident="SIGKILL@2", code=-9, **trainer.variables)
    assert logged(tmp_path / "run")
    run(*words, **trainer.variables)
    assert str(logged(tmp_path / "run")) == str(logged(finished(trainer.name)))


def test_the_second_process_leaves_a_refusal_to_the_first(trainer, finished, run):
    place = {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2}
    words = trainer.command(finished(trainer.name))
    end = run(*words, code=None, **place, **trainer.variables)
    assert (end.code, end.text) == (1, "")


def test_a_used_folder_is_refused_and_stays_as_it_is(trainer, finished, run, fails):
    output = finished(trainer.name)
    before = {file: file.stat().st_mtime_ns for file in output.rglob("*")}
    fails(run(*trainer.command(output), code=None, **trainer.variables), output.name)
    assert before == {file: file.stat().st_mtime_ns for file in output.rglob("*")}


def test_a_flipped_bit_is_found_and_the_checkpoint_before_is_taken(
    trainer, finished, run, fails, tmp_path
):
    output = tmp_path / "run"
    shutil.copytree(finished(trainer.name), output)
    damaged = output / last(output)
    if trainer.name == "detection":
        before = trainer.checkpoint(6)  # beside the final one
        (output / "results.json").unlink()  # not scored: its end was not reached
    else:
        before = trainer.checkpoint(3)
        (output / "last_checkpoint").write_text(str(damaged))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    end = run(*trainer.command(output, "--resume"), **trainer.variables)
    assert end.names(damaged.name, before), end.text
    expected, ours = (trainer.weights(folder) for folder in (finished(trainer.name), output))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)

    for file in output.glob("*.pth"):
        file.write_bytes(file.read_bytes()[:-1000])
    fails(
        run(*trainer.command(output, "--resume", steps=8), code=None, **trainer.variables), ".pth"
    )
    assert damaged.exists()


def test_a_mistyped_setting_is_named(trainer, run, fails, tmp_path):
    words = trainer.command(tmp_path / "run", f"{trainer.typo}=3")
    fails(run(*words, code=None, **trainer.variables), trainer.typo.rpartition(".")[2])
    assert not (tmp_path / "run").exists()
