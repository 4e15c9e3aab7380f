"""`eva distill`: features of a teacher once, a student that learns them, and what may go wrong."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import eva_backbone

SHARDS = "features/train"


@pytest.fixture(scope="module")
def distill(run, engine_data):
    """Function: distill 16 images into a folder, in 8 steps of 2 epochs of 2 views."""
    images = engine_data / "captions/zero_shot"

    def begin(output, *more, teacher="eva_debug", **accident):
        return run(
            "eva", "distill", images, "--teacher", teacher, "--student", "eva_debug_small",
            "--output", output, "--data.val", images, "--run.epochs", 2, "--run.batch-size", 8,
            "--run.checkpoint-every", 2, "--run.device", "cpu", "--run.no-tensorboard",
            "--run.resume", *more, **accident,
        )  # fmt: skip

    return begin


@pytest.fixture(scope="module")
def undisturbed(distill, tmp_path_factory):
    """Output folder and end of a distillation."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    return SimpleNamespace(output=output, end=distill(output))


@pytest.fixture(scope="module")
def story(distill, tmp_path_factory):
    """One that was killed among its features, stopped in its training, and continued."""
    output = tmp_path_factory.mktemp("story") / "run"
    killed = distill(output, code=-9, accident="rename:features-00003-*")
    shards = _times(output)
    stopped = distill(output, code=75, accident="SIGTERM@3")
    between = _times(output)
    distill(output)
    return SimpleNamespace(
        output=output, killed=killed, shards=shards, stopped=stopped, between=between
    )


def _times(output):
    return {one.name: one.stat().st_mtime_ns for one in (output / SHARDS).glob("features-*-of-*")}


def _weights(output):
    return load_file(max((output / "checkpoints").iterdir()) / "model.safetensors")


def test_features_are_computed_once_whatever_stops_them(story, undisturbed):
    assert [name[:14] for name in sorted(story.shards)] == [f"features-{n:05}" for n in range(3)]
    assert {name: story.between[name] for name in story.shards} == story.shards
    assert _times(story.output) == story.between
    for file in (undisturbed.output / "features").glob("*/features*"):
        other = story.output / file.relative_to(undisturbed.output)
        assert other.read_bytes() == file.read_bytes()
    assert undisturbed.end.names("32 views", "0.001 GB")


def test_a_stopped_distillation_ends_as_an_undisturbed_one_bit_for_bit(
    story, undisturbed, metrics_of
):
    ours, expected = _weights(story.output), _weights(undisturbed.output)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert metrics_of(story.output) == metrics_of(undisturbed.output)


def test_the_student_comes_closer_to_its_teacher(undisturbed, metrics_of, read_page):
    losses = [line["loss"] for line in metrics_of(undisturbed.output) if "loss" in line]
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.4
    assert read_page(undisturbed.output / "report.html").curves >= 2
    assert eva_backbone.load_vit(str(undisturbed.output)).embed_dim == 64


def test_a_student_starts_a_classifier(undisturbed, run, training, metrics_of, tmp_path):
    words = training("classification", tmp_path / "run", "--model.variant", "eva_debug_small")
    start = ("--model.init-checkpoint", undisturbed.output)
    run(*words, *start, "--run.epochs", 1)
    assert (tmp_path / "run/report.html").exists()


def test_damaged_and_foreign_features_are_one_error(undisturbed, distill, fails, tmp_path):
    cache = tmp_path / "features"
    shutil.copytree(undisturbed.output / "features", cache)
    words = (tmp_path / "run", "--teacher.cache", cache)
    student = undisturbed.output
    fails(distill(*words, teacher=student, code=None), cache / "train", "sha256")
    fails(distill(*words, "--teacher.views", 3, code=None), cache / "train", "names")
    file = min((cache / "train").glob("features-*-of-*"))
    file.write_bytes(file.read_bytes()[:-100])
    fails(distill(*words, code=None), file)
    assert not (tmp_path / "run/checkpoints").exists()
