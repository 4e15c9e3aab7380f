"""Runs that continue: where they lie, what they are continued with, and what is refused."""

import json
import shutil

import pytest
import torch

from eva_segmentation.commands import train


@pytest.fixture
def begun(tiny_run, tmp_path):
    """A run's folder elsewhere, which has come to its second iteration."""
    folder = tmp_path / "moved"
    folder.mkdir()
    for name in ("tiny.py", "run.json", "iter_2.pth"):
        shutil.copy(tiny_run / "run" / name, folder)
    noted = tiny_run / "gone" / "iter_2.pth"  # as if the folder had been moved from there
    (folder / "last_checkpoint").write_text(str(noted))
    return folder


@pytest.fixture
def spoilt(begun):
    """Function: change the content of the checkpoint."""

    def change(action):
        content = torch.load(begun / "iter_2.pth", weights_only=False)  # written by these tests
        action(content)
        torch.save(content, begun / "iter_2.pth")

    return change


def resumed(folder):
    return train, folder / "tiny.py", "--work-dir", folder, "--resume"


def iterations(entries):
    return [entry["iter"] for entry in entries if "loss" in entry]


def test_a_moved_run_continues_and_reads_weights_alone(
    begun, tiny_run, launch, scalars, monkeypatch
):
    seen, load = [], torch.load

    def watched(*args, **options):
        seen.append(options.get("weights_only"))
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", watched)
    launch(*resumed(begun))
    assert seen
    assert all(value is True for value in seen)
    assert iterations(scalars(begun)) == [3]
    ours, theirs = (
        load(folder / "iter_3.pth", weights_only=False) for folder in (begun, tiny_run / "run")
    )  # written by these tests
    assert ours["meta"]["iter"] == theirs["meta"]["iter"] == 3
    assert ours["meta"]["seed"] == theirs["meta"]["seed"]
    assert ours["param_schedulers"] == theirs["param_schedulers"]


def test_a_run_without_a_name_of_its_checkpoint_goes_on_from_the_newest(
    begun, tiny_run, launch, fails, scalars
):
    shutil.copy(tiny_run / "run" / "iter_1.pth", begun)
    (begun / "last_checkpoint").write_text("")
    assert "--resume" in fails(train, begun / "tiny.py", "--work-dir", begun)
    launch(*resumed(begun))
    assert iterations(scalars(begun)) == [3]


def test_the_text_of_a_config_in_a_checkpoint_is_not_run(begun, spoilt, launch, scalars, tmp_path):
    text = f"import os\nos.mkdir({str(tmp_path / 'harm')!r})"
    spoilt(lambda content: content["meta"].update(cfg=text, config=text))
    launch(*resumed(begun))
    assert iterations(scalars(begun)) == [3]
    assert not (tmp_path / "harm").exists()


def test_files_that_a_checkpoint_names_elsewhere_are_left_alone(begun, spoilt, launch, tmp_path):
    """mmengine's hook removes the best weights so far, and checkpoints that it no longer keeps."""
    precious = [tmp_path / name for name in ("precious.pth", "best_of_all.pth", "iter_x.pth")]
    for file in precious:
        file.write_text("precious")

    def name(content):
        info = content["message_hub"]["runtime_info"]
        info |= {"best_ckpt": str(precious[1]), "best_score": -1.0}
        info |= {"keep_ckpt_ids": ["../iter_x", 1]}
        content["message_hub"]["resumed_keys"] |= dict.fromkeys(info, True)

    spoilt(name)
    launch(*resumed(begun), "default_hooks.checkpoint.max_keep_ckpts=1")
    assert all(file.exists() for file in precious)


def test_a_finished_run_that_is_continued_keeps_its_report(tiny_run, launch, tmp_path):
    """What it says of classes and images needs an evaluation, and there is none any more."""
    folder = tmp_path / "moved"
    shutil.copytree(tiny_run / "run", folder)
    kept = ("report.html", "results.json", "per_class.csv")
    before = [(folder / name).read_bytes() for name in kept]
    launch(*resumed(folder))
    assert [(folder / name).read_bytes() for name in kept] == before


def test_a_finished_run_names_the_scores_of_its_last_evaluation(tiny_run, launch, tmp_path, capsys):
    """Its checkpoint may know those of the one before."""
    folder = tmp_path / "moved"
    shutil.copytree(tiny_run / "run", folder)
    (log,) = folder.glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[-1] |= {"mIoU": 12.3}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    launch(*resumed(folder))
    assert "mIoU 12.3" in capsys.readouterr().err
