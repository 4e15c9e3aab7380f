"""Trainings are stopped, killed, diverge and continue: the end is the same, whatever the trainer.

docs/reliability.md has what is promised. The accidents of one process happen to one run, which
saves after each third step.
"""

import json
import os
import re
import shutil
import signal
from itertools import chain
from types import SimpleNamespace

import pytest
import torch

ENGINE = ("classification", "pretrain", "video", "clip")
FRAMEWORK_OF = {"detection": "detectron2", "mmdetection": "mmengine", "segmentation": "mmengine"}
FRAMEWORKS = ("detection", "segmentation", "mmdetection")
STOPPED = 75  # exit code of a run that was told to stop, and saved


def some(*quick, of=(*ENGINE, *FRAMEWORKS)):
    """Parametrize the trainer: all of `of`, those that are not quick by `make test-slow`."""
    names = [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in quick), id=name) for name in of
    ]
    return pytest.mark.parametrize("trainer", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
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
        ends[name] = SimpleNamespace(end=end, last=trainer.last(output))

    begin("stopped", accident="SIGTERM@1")
    begin("killed in a save", *trainer.resume, accident=f"rename:{trainer.checkpoint(3)}")
    if trainer.name in FRAMEWORKS:
        begin("diverged", *trainer.resume, accident="nan@3")
    begin("interrupted", *trainer.resume, accident="SIGINT@1")
    workers = 2 if trainer.name == "classification" else 0
    begin("continued", *trainer.resume, f"{trainer.workers}{workers}")
    return SimpleNamespace(
        output=output, **{key.replace(" ", "_"): end for key, end in ends.items()}
    )


@some("classification", "detection", "segmentation")
def test_one_run_with_all_accidents_ends_as_one_that_nobody_disturbed(
    story, trainer, finished, fails
):
    saved = {trainer.checkpoint(step) for step in (3, 6)}
    assert story.stopped.end.code == STOPPED, story.stopped.end.text
    assert "Traceback" not in story.stopped.end.text
    assert story.stopped.last not in saved
    assert story.killed_in_a_save.end.code == -signal.SIGKILL, story.killed_in_a_save.end.text
    assert story.killed_in_a_save.last == story.stopped.last
    if trainer.name in FRAMEWORKS:
        fails(story.diverged.end, ".jpg")
        assert story.diverged.end.code not in (STOPPED, 130)
        assert story.diverged.last == trainer.checkpoint(3)
    fails(story.interrupted.end, "Ctrl-C", code=STOPPED)
    assert story.interrupted.last not in saved
    assert story.continued.end.code == 0, story.continued.end.text
    trainer.assert_same_end(story.output, finished(trainer.name))
    if trainer.name in FRAMEWORKS:
        ours, expected = (
            json.loads((folder / "results.json").read_text())
            for folder in (story.output, finished(trainer.name))
        )
        assert str(ours) == str(expected)


@pytest.mark.parametrize(
    "task",
    [
        "classification",
        *(pytest.param(t, marks=pytest.mark.slow) for t in ("clip", "pretrain", "video")),
    ],
)
def test_a_loss_that_is_not_finite_ends_a_run_of_the_engine_before_the_step(
    run, fails, training, metrics_of, tmp_path, task
):
    fails(run(*training(task, tmp_path / "run", "--run.epochs", 1), accident="nan@1", code=None))
    assert len(metrics_of(tmp_path / "run")) <= 2
    assert not [*tmp_path.glob("run/checkpoints/step_*")]


# ---- several processes ---------------------------------------------------------------------------


@pytest.fixture
def run_two(trainer, start_ranks, tmp_path):
    """Function: train in two processes in a folder of a name; exit codes, and what they wrote."""
    half = {"pretrain": 2, "classification": 12, "video": 4, "clip": 12}.get(trainer.name)
    size = ("--run.batch-size", half) if half else ()
    launcher = ("--launcher", "pytorch") if trainer.output == "--work-dir " else ()

    def train(name, *more, **keywords):
        words = trainer.command(tmp_path / name, *launcher, *size, *more)
        # in one folder, below which mmengine gathers results
        ranks = start_ranks(words, words, folder=tmp_path, **keywords, **trainer.variables)
        ends = [running.wait() for running in ranks]
        return [end.code for end in ends], "".join(end.text for end in ends)

    return train


@some()
def test_two_processes_stop_together_and_continue(trainer, run_two, finished, metrics_of, tmp_path):
    """The signal reaches one of them alone; both stop after the same step.

    Where nothing is drawn on the device, two processes give what one gives.
    """
    for name, more, accident, code in (
        ("whole", (), None, 0),
        ("stopped", (), "SIGTERM@2/1", STOPPED),
        ("stopped", trainer.resume, None, 0),
    ):
        codes, text = run_two(name, *more, accident=accident)
        assert codes == [code] * 2, text
    trainer.assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    if trainer.name == "pretrain":
        alone, both = (
            [line["loss"] for line in metrics_of(folder) if "loss" in line]
            for folder in (finished("pretrain"), tmp_path / "whole")
        )
        assert both == pytest.approx(alone, rel=1e-3)


@pytest.mark.slow
def test_ctrl_c_stops_the_processes_of_detectron2_s_own_launcher(trainers, run, tmp_path):
    trainer = trainers("detection")
    words = trainer.command(tmp_path / "run", "--num-gpus", 2, "--dist-url", "auto")
    run(*words, accident="SIGINT@2!/1", code=STOPPED, **trainer.variables)
    run(*words, "--resume", **trainer.variables)


@some(of=("detection", "segmentation"))
@pytest.mark.parametrize(
    "place",
    ["forward@2/1", "all-reduce@3/0", "save@2/0", "worker@1/1", "forward@3/0,resume@1/1"],
)
def test_torchrun_restarts_after_a_kill_anywhere(trainer, place, run, once, tmp_path):
    """The end is that of a run that nobody disturbed."""
    more = [f"{trainer.workers}1"]
    more += ["dataloader.train.total_batch_size=3"] if trainer.name == "detection" else []

    def train(folder, **keywords):
        words = trainer.command(folder, "--resume", *more, steps=4, period=1)
        torchrun = ("torchrun", "--nproc-per-node", 3, "--max-restarts", 3, "-m", "eva_command")
        run(*torchrun, *words[1:], **keywords, **trainer.variables)
        return folder

    whole = train(once(f"three_processes_{trainer.name}", lambda folder: None) / "run")
    notes = {one: tmp_path / one.partition("@")[0] for one in place.split(",")}
    accident = ",".join(f"{one}:{note}" for one, note in notes.items())
    train(tmp_path / "run", accident=accident)
    assert all(note.exists() for note in notes.values()), "nothing was killed"
    trainer.assert_same_weights(tmp_path / "run", whole, steps=4)


@some(of=FRAMEWORKS)
def test_other_numbers_of_processes_see_the_same_images_in_the_same_steps(trainer, run, tmp_path):
    six = {"detection": "dataloader.train.total_batch_size=6"}
    size = six.get(trainer.name, "train_dataloader.batch_size=3")

    def train(name, processes, *more, accident="", **keywords):
        """Take steps; return the images of each."""
        notes = tmp_path / f"{len([*tmp_path.iterdir()])}.jsonl"
        words = trainer.command(tmp_path / name, size, *more, period=1, processes=processes)
        end = run(*words, accident=f"images:{notes}{accident}", **keywords, **trainer.variables)
        steps = {}
        lines = notes.read_text().splitlines() if notes.exists() else ()
        for rank, images in map(json.loads, lines):
            steps.setdefault(rank, []).append(images[-6 // processes :])
        return end, [sorted(chain(*step)) for step in zip(*steps.values(), strict=True)]

    _, whole = train("whole", 2)
    _, seen = train("run", 2, accident=",SIGKILL@3!", code=None)
    assert seen == whole[:3]
    done = int(re.sub(r"\D", "", trainer.last(tmp_path / "run"))) + (trainer.name == "detection")
    end, seen = train("run", 1, "--resume", accident=",SIGTERM@2", code=STOPPED)
    assert end.names("on 1 processes, began with 2"), end.text
    assert 2 <= len(seen) <= 3
    assert seen == whole[done : done + len(seen)]
    done += len(seen)
    end, seen = train("run", 4, "--resume", code=None)
    assert not seen
    assert end.names("4 processes", "6 samples", "1, 2, 3, 6"), end.text
    _, seen = train("run", 3, "--resume")
    assert seen == whole[done:]


@some("segmentation", of=FRAMEWORKS[1:])
def test_a_smaller_batch_takes_the_images_of_an_iteration_in_parts(trainer, run, tmp_path):
    for steps, batch in ((1, 4), (2, 2)):
        more = f"train_dataloader.batch_size={batch}", "--resume"
        run(*trainer.command(tmp_path, *more, steps=steps, period=1), **trainer.variables)
    saved = torch.load(tmp_path / "iter_2.pth", weights_only=False)["eva_run"]
    assert (saved["samples_of_a_batch"], saved["samples"]) == (4, 8)


@some("detection", "segmentation", of=FRAMEWORKS)
def test_a_learning_rate_that_is_given_anew_is_that_of_the_steps_to_come(trainer, run, tmp_path):
    names = dict.fromkeys(FRAMEWORKS[1:], "optim_wrapper.optimizer.lr")
    lr = f"{names.get(trainer.name, 'optimizer.lr')}=3e-6"
    for folder, steps, words in (
        ("run", 1, ()),
        ("run", 2, (lr, *trainer.resume)),
        ("whole", 2, (lr,)),
    ):
        more = trainer.command(tmp_path / folder, *words, steps=steps, period=1)
        run(*more, **trainer.variables)
    rates = [
        [line["lr"] for line in trainer.logged(tmp_path / name) if "lr" in line]
        for name in ("run", "whole")
    ]
    assert rates[0][-1] == rates[1][-1]


@some("segmentation", of=("segmentation", "mmdetection"))
def test_a_step_in_parts_learns_at_the_rate_of_a_whole_one(trainer, run, tmp_path):
    rates = {}
    for name, words in (("whole", ()), ("parts", ("--batch", "2"))):
        words = ("train_dataloader.batch_size=4", *words)
        run(*trainer.command(tmp_path / name, *words, steps=2, period=1), **trainer.variables)
        rates[name] = [line["lr"] for line in trainer.logged(tmp_path / name) if "lr" in line]
    assert rates["parts"] == [rate for rate in rates["whole"] for _ in range(2)]
    again = shutil.copytree(tmp_path / "parts", tmp_path / "again")
    (again / "iter_4.pth").unlink()  # so --resume does the second step again, in parts as before
    words = ("train_dataloader.batch_size=4", *trainer.resume)
    run(*trainer.command(again, *words, steps=2, period=1), **trainer.variables)
    trainer.assert_same_end(again, tmp_path / "parts", steps=4)


@some("classification", "segmentation", of=("classification", *FRAMEWORKS))
def test_a_run_that_is_longer_than_asked_is_refused_and_stays(trainer, finished, run, tmp_path):
    folder = shutil.copytree(finished(trainer.name), tmp_path / "run")
    before = {file: file.read_bytes() for file in folder.glob("config.*")}
    shorter = ("run.epochs=1",) if trainer.name in ENGINE else ()
    words = trainer.command(folder, *shorter, *trainer.resume, steps=1)
    end = run(*words, code=1, **trainer.variables)
    assert end.names("raise it, or choose another"), end.text
    assert not end.names("traceback"), end.text
    assert {file: file.read_bytes() for file in folder.glob("config.*")} == before


@some("segmentation", of=FRAMEWORKS)
def test_a_loss_that_is_not_finite_on_one_of_two_processes(trainer, run, tmp_path):
    words = trainer.command(tmp_path / "run", steps=3, period=3, processes=2)
    end = run(*words, accident="nan@1/1", code=1, **trainer.variables)
    assert end.names("process 1", ".jpg"), end.text
    assert not end.names("process 0"), end.text


def test_a_lost_process_ends_the_other(training, start_ranks, wait_for, metrics_of, tmp_path):
    output = tmp_path / "run"
    words = training("pretrain", output, "--run.batch-size", 2, "--run.epochs", 100)
    two = start_ranks(words, words)
    wait_for(lambda: metrics_of(output))
    os.kill(two[1].process.pid, signal.SIGKILL)
    ended = two[0].wait(timeout=60)
    assert ended.code not in (0, STOPPED)
    assert ended.names("process 0 lost the connection")
    assert not ended.names("pair.cc")


# ---- folders and checkpoints ---------------------------------------------------------------------


@some("segmentation", of=FRAMEWORKS[1:])
def test_a_start_after_a_kill_before_the_first_checkpoint_logs_alone(
    trainer, finished, run, tmp_path
):
    words = trainer.command(tmp_path / "run")
    run(*words, accident="SIGKILL@2", code=-signal.SIGKILL, **trainer.variables)
    assert trainer.logged(tmp_path / "run")
    run(*words, **trainer.variables)
    assert str(trainer.logged(tmp_path / "run")) == str(trainer.logged(finished(trainer.name)))


@some("classification", "segmentation")
def test_a_kill_before_the_page_leaves_nothing_out_of_the_next(
    trainer, finished, run, read_page, tmp_path
):
    words, output = trainer.command(tmp_path / "run"), tmp_path / "run"
    run(*words, accident="rename:report.html", code=-signal.SIGKILL, **trainer.variables)
    run(*words, *trainer.resume, **trainer.variables)
    folders = output, finished(trainer.name)
    pages = [read_page(folder / "report.html") for folder in folders]
    assert len({(page.curves, len(page.images)) for page in pages}) == 1
    tables = [sorted(file.name for file in folder.glob("*.csv")) for folder in folders]
    assert tables[0] == tables[1]


def state(folder):
    """Content and time of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@some("classification", "detection", "segmentation")
def test_a_used_folder_is_refused_by_the_first_process_and_stays(
    trainer, finished, run, call_eva, fails
):
    output = finished(trainer.name)
    before, words = state(output), trainer.command(output, *trainer.fresh)
    fails(call_eva(*words, **trainer.variables), output)
    ranks = {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2}
    end = run(*words, code=None, **ranks, **trainer.variables)
    assert (end.code, end.text) == (1, "")
    assert state(output) == before


@some("classification", "detection", "segmentation")
def test_folders_with_runs_of_other_frameworks_stay(trainer, finished, call_eva, fails):
    for other in {"classification", "detection", "segmentation"} - {trainer.name}:
        output = finished(other)
        before = state(output)
        of_another = FRAMEWORK_OF.get(other) != FRAMEWORK_OF.get(trainer.name)
        for words in (trainer.fresh, trainer.resume) if of_another else (trainer.fresh,):
            fails(call_eva(*trainer.command(output, *words), **trainer.variables), output)
            assert state(output) == before


def test_two_runs_in_one_folder(run, start, fails, training, wait_for, metrics_of, tmp_path):
    output = tmp_path / "run"
    first = start(*training("pretrain", output))
    wait_for(lambda: metrics_of(output))
    fails(run(*training("pretrain", output), code=None), output)
    assert first.wait().code == 0


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@some("detection", of=FRAMEWORKS)
def test_a_flipped_bit_is_found_and_the_checkpoint_before_is_taken(
    trainer, finished, run, fails, tmp_path
):
    output = tmp_path / "run"
    shutil.copytree(finished(trainer.name), output)
    damaged = output / trainer.last(output)
    if trainer.name == "detection":
        before = trainer.checkpoint(6)  # beside the final one
        (output / "results.json").unlink()  # not scored: its end was not reached
    else:
        before = trainer.checkpoint(3)
        (output / "last_checkpoint").write_text(str(damaged))
    flip(damaged)
    end = run(*trainer.command(output, "--resume"), **trainer.variables)
    assert end.names(damaged.name, before), end.text
    trainer.assert_same_weights(output, finished(trainer.name))

    for file in output.glob("*.pth"):
        file.write_bytes(file.read_bytes()[:-1000])
    words = trainer.command(output, "--resume", steps=8)
    fails(run(*words, code=None, **trainer.variables), ".pth")
    assert damaged.exists()


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(
    run, fails, training, finished, tmp_path
):
    output = tmp_path / "run"
    shutil.copytree(finished("pretrain"), output)
    *others, last = sorted(output.glob("checkpoints/step_*"))
    for folder in others:
        shutil.rmtree(folder)
    flip(last / "model.safetensors")
    before = state(last)
    fails(run(*training("pretrain", output), code=None), output, last.name)
    assert state(last) == before
