"""Every command says things in one way: folders, devices, platforms; and nothing besides."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from eva_runs import output_folder
from eva_runs.precision import require_device

NOT_HERE = "import sys; sys.modules.update(fcntl=None, resource=None)\n"


def test_a_run_without_a_folder_does_not_meet_an_earlier_one(finished, call_eva, tmp_path):
    name = "output/classification_debug"
    words = ("eva", "classification", "train", "eva_debug_digits", "--print-config")

    def folder(*more):
        return json.loads(call_eva(*words, *more, code=0).out)["run"]["output"]

    assert folder() == name
    shutil.copytree(finished("classification"), tmp_path / name)
    assert folder() == f"{name}-2"
    assert folder("--resume") == name
    assert folder("--output", "mine") == "mine"


def test_results_without_a_folder_do_not_meet_earlier_ones(demo, run, finished, tmp_path):
    images = demo("coco") / "coco/val"
    few = [*sorted(images.iterdir())[:2]]
    label = ("eva", "label", *few, "--weights", finished("detection"), "--to", "coco")
    batch = ("eva", "batch", "features", images, "--weights", "eva_debug", "--limit", 2)
    for words, name in ((label, "labels"), ((*batch, "--processes", 0), "features")):
        for folder in (name, f"{name}-2"):
            run(*words, "--device", "cpu", folder=tmp_path)
            assert (tmp_path / "output" / folder).is_dir()
        assert not (tmp_path / "output" / f"{name}-3").exists()
    run("eva", "batch", "merge", "output/features-2", folder=tmp_path)
    assert (tmp_path / "output/features-2.parquet").is_file()


@pytest.mark.parametrize(
    "task", ["classification", pytest.param("segmentation", marks=pytest.mark.slow)]
)
def test_evaluations_without_a_folder_do_not_meet_earlier_ones(
    task, engine_data, finished, run, tmp_path
):
    mine = shutil.copytree(finished(task), tmp_path / "mine")
    words = ["eva", task, "evaluate", mine]
    if task == "classification":
        words += ["--data", engine_data / "folder/val", "--device", "cpu", "--workers", 0]
    for folder in ("evaluation", "evaluation-2"):
        run(*words, folder=tmp_path)
        assert (mine / folder / "results.json").is_file()


@pytest.mark.slow
def test_exports_without_a_file_do_not_meet_earlier_ones(finished, run, tmp_path):
    mine = shutil.copytree(finished("classification"), tmp_path / "mine")
    for file in ("mine.onnx", "mine-2.onnx"):
        run("eva", "export", mine, folder=tmp_path)
        assert (tmp_path / "output" / file).is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is not missing")
@pytest.mark.parametrize("task", ["detection", "mmdetection", "segmentation", "classification"])
def test_a_training_on_a_gpu_that_is_not_there_ends_in_one_line(
    task, trainers, training, call_eva, run, tmp_path
):
    gpu = {"detection": "train.device=cuda", "classification": "--run.device=cuda"}
    words = training(task, tmp_path / "out", gpu.get(task, "--amp"))
    # detectron2 registers its data sets once, below the folder of this variable
    call = run if trainers(task).variables else call_eva
    ended = call(*words, **trainers(task).variables, code=1)
    assert ended.names("cuda"), ended.text
    assert ended.text.strip().count("\n") == 0, ended.text
    assert not [*tmp_path.rglob("*.pth")]


def test_a_missing_gpu_is_one_sentence():
    count = torch.cuda.device_count()
    with pytest.raises(ValueError, match=rf"cuda:{count}.*{count} GPUs"):
        require_device(f"cuda:{count}")


def test_a_training_whose_checkpoint_does_not_fit_the_disk_is_refused(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _: usage)
    output_folder.require_room_for_checkpoint(tmp_path, torch.nn.Linear(10, 10))
    with pytest.raises(ValueError, match="free"):
        output_folder.require_room_for_checkpoint(tmp_path, torch.nn.Linear(100, 100))


@pytest.mark.parametrize(
    "words", [["train", "x"], pytest.param(["weights", "list"], marks=pytest.mark.slow)]
)
def test_off_linux_and_macos_models_import_and_commands_end_in_one_line(words):
    program = NOT_HERE + "import eva_backbone; eva_backbone.VisionTransformer\n"
    program += f"sys.argv[1:] = {words!r}\nfrom eva_command.main import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert "Linux" in ended.stderr
