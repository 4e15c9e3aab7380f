"""Runs that continue: where they lie, what they are continued with, and what is refused."""

import os
import shutil
import zipfile

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS

from eva_openmmlab.training.checkpoint_checks import check_fits
from eva_openmmlab.training.checkpoint_files import UnfitCheckpointError, read_checkpoint
from eva_segmentation.training import train
from eva_segmentation.training.schedule import WarmupPolyLR


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


@pytest.fixture(scope="module")
def loaded(tiny_run):
    """Function: look at a checkpoint as a run would, without changing anything."""
    cfg = Config.fromfile(tiny_run / "tiny.py")
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    schedule = WarmupPolyLR(optimizer, warmup_iters=1, end=3, by_epoch=False)

    def look(file):
        return check_fits(
            file,
            read_checkpoint(file),
            model=model,
            optimizer=optimizer,
            schedulers=[schedule],
            max_iters=3,
        )

    assert look(tiny_run / "run" / "iter_2.pth") == []
    return look


def contents(folder):
    """Bytes of the files of a run, without its logs and its lock."""
    others = (".lock", "log.txt", "starts.jsonl")
    files = (path for path in folder.iterdir() if path.is_file() and path.name not in others)
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
    shutil.copy(tiny_run / "run" / "iter_1.pth", begun / "iter_2.pth")  # to distinguish the two
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


@pytest.mark.parametrize("key", ["config", "cfg"])
def test_the_text_of_a_checkpoint_is_not_run(key, begun, launch, tmp_path, scalars):
    """mmengine's runner reads `meta["config"]` as a program."""
    content = torch.load(begun / "iter_2.pth", weights_only=False)
    content["meta"][key] = f"import os\nos.mkdir({str(tmp_path / 'harm')!r})"
    torch.save(content, begun / "iter_2.pth")
    launch(train, begun / "tiny.py", "--work-dir", begun, "--resume")
    assert iterations(scalars(begun)) == [3]
    assert not (tmp_path / "harm").exists()


def test_files_that_a_checkpoint_names_elsewhere_are_left_alone(begun, launch, tmp_path):
    """mmengine's hook removes the best weights so far, and checkpoints that it no longer keeps."""
    precious = [tmp_path / "precious.pth", tmp_path / "best_of_all.pth", tmp_path / "iter_x.pth"]
    for file in precious:
        file.write_text("precious")
    for file in precious:
        content = torch.load(begun / "iter_2.pth", weights_only=False)
        info = content["message_hub"]["runtime_info"]
        info |= {"best_ckpt": str(file), "best_score": -1.0, "keep_ckpt_ids": ["../iter_x", 1]}
        content["message_hub"]["resumed_keys"] |= dict.fromkeys(info, True)
        torch.save(content, begun / "iter_2.pth")
        (begun / "last_checkpoint").write_text("iter_2.pth")
        kept = ("--cfg-options", "default_hooks.checkpoint.max_keep_ckpts=1")
        launch(train, begun / "tiny.py", "--work-dir", begun, "--resume", *kept)
    assert all(file.exists() for file in precious)


def test_a_checkpoint_outside_the_folder_is_not_looked_for(begun, launch, tmp_path):
    (begun / "iter_2.pth").rename(tmp_path / "elsewhere.pth")
    (begun / "last_checkpoint").write_text(str(tmp_path / "elsewhere.pth"))
    with pytest.raises(SystemExit, match=r"elsewhere\.pth, which is not there"):
        launch(train, begun / "tiny.py", "--work-dir", begun, "--resume")


@pytest.mark.parametrize("tag", [None, ""])
def test_a_run_without_a_name_of_its_checkpoint_goes_on_from_the_newest(
    tag, begun, tiny_run, launch, scalars
):
    shutil.copy(tiny_run / "run" / "iter_1.pth", begun)
    (begun / "last_checkpoint").unlink()
    if tag is not None:
        (begun / "last_checkpoint").write_text(tag)
    with pytest.raises(SystemExit, match=r"has a run .*: continue it with --resume"):
        launch(train, begun / "tiny.py", "--work-dir", begun)
    launch(train, begun / "tiny.py", "--work-dir", begun, "--resume")
    assert iterations(scalars(begun)) == [3]


def test_a_damaged_checkpoint_is_named_with_those_that_are_complete(begun, tiny_run, launch):
    shutil.copy(tiny_run / "run" / "iter_1.pth", begun)
    content = bytearray((begun / "iter_2.pth").read_bytes())
    with zipfile.ZipFile(begun / "iter_2.pth") as archive:  # between records there is padding
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 4
    (begun / "iter_2.pth").write_bytes(content)
    before = contents(begun)
    message = (
        r"^train\.py: \S*iter_2\.pth cannot be continued from: .* \(iter_1\.pth in the same folder "
        r"is complete: write its name to last_checkpoint\)$"
    )
    with pytest.raises(SystemExit, match=message):
        launch(train, begun / "tiny.py", "--work-dir", begun, "--resume")
    assert contents(begun) == before


def spoil(content, name):
    """Change one part of a checkpoint."""
    state, optimizer = content["state_dict"], content["optimizer"]
    weight = next(name for name in state if name.endswith("weight"))
    match name:
        case "half of the model":
            content["state_dict"] = dict(list(state.items())[: len(state) // 2])
        case "other shapes":
            state[weight] = state[weight][:1]
        case "another type":
            state[weight] = state[weight].half()
        case "NaN":
            state[weight][0] = float("nan")
        case "no tensor":
            state[weight] = 3
        case "another optimizer":
            for group in optimizer["param_groups"]:
                del group["betas"]
        case "fewer groups":
            optimizer["param_groups"].pop()
        case "no base":
            optimizer["base_param_settings"] = 5
        case "no moments":
            optimizer["state"] = {}
        case "moments of other shapes":
            optimizer["state"][0]["exp_avg"] = torch.zeros(3)
        case "half of the moments":
            del optimizer["state"][0]["exp_avg"]
        case "infinite moments":
            optimizer["state"][0]["exp_avg"].fill_(float("inf"))
        case "no schedule":
            content["param_schedulers"] = []
        case "another schedule":
            content["param_schedulers"][0] = {"last_step": 3}
        case "a schedule of text":
            content["param_schedulers"][0]["last_step"] = "3"
        case "a later iteration":
            content["meta"]["iter"] = 4
        case "an iteration of text":
            content["meta"]["iter"] = "2"
        case "a negative seed":
            content["meta"]["seed"] = -1
        case "no history":
            content["message_hub"]["log_scalars"] = {"train/loss": 3}
        case _:
            del content[name]


@pytest.mark.parametrize(
    "what",
    [
        *("half of the model", "other shapes", "another type", "NaN", "no tensor"),
        *("another optimizer", "fewer groups", "no base", "no moments", "moments of other shapes"),
        *("half of the moments", "infinite moments", "no schedule", "another schedule"),
        *("a schedule of text", "a later iteration", "an iteration of text", "a negative seed"),
        *("no history", "meta", "state_dict", "optimizer", "message_hub", "param_schedulers"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(what, tiny_run, loaded, tmp_path):
    content = torch.load(tiny_run / "run" / "iter_2.pth", weights_only=False)
    spoil(content, what)
    file = tmp_path / "iter_2.pth"
    torch.save(content, file)
    with pytest.raises(UnfitCheckpointError, match=r"iter_2\.pth") as refusal:
        loaded(file)
    assert len(str(refusal.value).splitlines()) == 1


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


def test_a_finished_run_that_is_continued_keeps_its_report(tiny_run, launch, tmp_path, capsys):
    """What it says of classes and pictures needs an evaluation, and there is none any more."""
    folder = tmp_path / "moved"
    shutil.copytree(tiny_run / "run", folder)
    kept = ("report.html", "results.json", "per_class.csv")
    before = [(folder / name).read_bytes() for name in kept]
    launch(train, folder / "tiny.py", "--work-dir", folder, "--resume")
    assert [(folder / name).read_bytes() for name in kept] == before
    *_, finished, scores, took, _, page, _ = capsys.readouterr().err.splitlines()
    assert finished == f"{folder} has a finished run: all of its 3 iterations are done"
    assert scores.startswith("mIoU ")
    assert took.startswith("took ")
    assert page == f"report   {folder}/report.html"


def test_a_work_folder_that_has_a_run_wants_resume(begun, launch):
    before = contents(begun)
    with pytest.raises(SystemExit, match=r"has a run .*: continue it with --resume"):
        launch(train, begun / "tiny.py", "--work-dir", begun)
    assert contents(begun) == before
