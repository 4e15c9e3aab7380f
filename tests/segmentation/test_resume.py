"""Runs that continue: where they lie, what they are continued with, and what is refused."""

import os
import shutil

import pytest
import torch

from eva_segmentation import train


@pytest.fixture
def begun(tiny_run, tmp_path):
    """A run's folder elsewhere, which has come to its second iteration."""
    folder = tmp_path / "moved"
    folder.mkdir()
    shutil.copy(tiny_run / "run" / "tiny.py", folder)
    shutil.copy(tiny_run / "run" / "iter_2.pth", folder)
    noted = tiny_run / "gone" / "iter_2.pth"  # as if the folder had been moved from there
    (folder / "last_checkpoint").write_text(str(noted))
    return folder


def contents(folder):
    """Bytes of the files of a run, without its logs and its lock."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name != ".lock")
    return {path.name: path.read_bytes() for path in files}


def iterations(entries):
    return [entry["iter"] for entry in entries if "loss" in entry]


class Harmful:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_moved_run_continues_and_reads_weights_alone(
    begun, tiny_run, launch, scalars, monkeypatch
):
    seen, load = [], torch.load

    def watched(*args, **options):
        seen.append(options.get("weights_only"))
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", watched)
    launch(train, begun / "tiny.py", "--work-dir", begun, "--resume")
    assert seen
    assert all(value is True for value in seen)
    assert iterations(scalars(begun)) == [3]
    ours, theirs = (
        load(folder / "iter_3.pth", weights_only=False) for folder in (begun, tiny_run / "run")
    )  # written by these tests
    assert ours["meta"]["iter"] == theirs["meta"]["iter"] == 3
    assert ours["meta"]["seed"] == theirs["meta"]["seed"]
    assert ours["param_schedulers"] == theirs["param_schedulers"]


def test_a_copied_run_continues_from_its_own_checkpoint(begun, tiny_run, launch, scalars):
    """The original is still there, and further; the option stands for the flag."""
    shutil.copy(tiny_run / "run" / "iter_1.pth", begun / "iter_2.pth")  # to tell the two apart
    (begun / "last_checkpoint").write_text(str(tiny_run / "run" / "iter_2.pth"))
    resume = ("--cfg-options", "resume=True")
    launch(train, begun / "tiny.py", "--work-dir", begun, *resume)
    assert iterations(scalars(begun)) == [2, 3]


def test_a_checkpoint_that_is_nowhere_is_named(begun, launch):
    (begun / "iter_2.pth").unlink()
    before = contents(begun)
    message = r"moved/last_checkpoint names .*gone/iter_2\.pth, which is not there; name another"
    with pytest.raises(SystemExit, match=message):
        launch(train, begun / "tiny.py", "--work-dir", begun, "--resume")
    assert contents(begun) == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.decode_head.num_classes=7", r"decode_head\.conv_seg\.weight \(5, 8, 1, 1\) -> \(7"),
        ("model.backbone.depth=3", r"backbone\.net\.blocks\.2\.\S+ is missing"),
        ("model.backbone.depth=1", r"backbone\.net\.blocks\.1\.\S+ is not in the model"),
    ],
)
def test_another_model_does_not_continue_the_run(option, message, begun, launch):
    before = contents(begun)
    options = ["--work-dir", begun, "--resume", "--cfg-options", option]
    with pytest.raises(SystemExit, match=message) as stop:
        launch(train, begun / "tiny.py", *options)
    text = str(stop.value)
    assert text.startswith("train.py: ")
    assert "so that the run cannot continue" in text
    assert len(text.splitlines()) == 1
    assert contents(begun) == before  # the saved config too


def test_a_checkpoint_with_code_is_refused_and_the_code_does_not_run(begun, launch, tmp_path):
    content = torch.load(begun / "iter_2.pth", weights_only=False)
    content["meta"]["more"] = Harmful(str(tmp_path / "harm"))
    torch.save(content, begun / "iter_2.pth")
    with pytest.raises(SystemExit, match=r"train\.py: .*iter_2\.pth is refused: .* run code"):
        launch(train, begun / "tiny.py", "--work-dir", begun, "--resume")
    assert not (tmp_path / "harm").exists()


def test_a_run_that_begins_with_the_flag_saves_its_config(tiny_run, launch, tmp_path):
    launch(train, tiny_run / "tiny.py", "--work-dir", tmp_path, "--resume")
    assert (tmp_path / "tiny.py").is_file()
    assert (tmp_path / "iter_3.pth").is_file()


def test_a_work_folder_that_has_a_run_wants_resume(begun, launch):
    before = contents(begun)
    with pytest.raises(SystemExit, match="has a run already: continue it with --resume"):
        launch(train, begun / "tiny.py", "--work-dir", begun)
    assert contents(begun) == before
