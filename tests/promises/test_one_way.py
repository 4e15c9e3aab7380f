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


def test_a_run_without_a_folder_does_not_meet_an_earlier_one(finished, run, tmp_path):
    name = "output/classification_debug"
    words = ("eva", "classification", "train", "eva_debug_digits", "--print-config")

    def folder(*more):
        return json.loads(run(*words, *more, folder=tmp_path).out)["run"]["output"]

    assert folder() == name
    shutil.copytree(finished("classification"), tmp_path / name)
    assert folder() == f"{name}-2"
    assert folder("--resume") == name
    assert folder("--output", "mine") == "mine"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is not missing")
@pytest.mark.parametrize("task", ["detection", "mmdetection", "segmentation", "classification"])
def test_a_training_on_a_gpu_that_is_not_there_ends_in_one_line(
    task, trainers, training, run, tmp_path
):
    gpu = {"detection": "train.device=cuda", "classification": "--run.device=cuda"}
    words = training(task, tmp_path / "out", gpu.get(task, "--amp"))
    ended = run(*words, **trainers(task).variables, code=1)
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


@pytest.mark.parametrize("words", [["train", "x"], ["weights", "list"]])
def test_off_linux_and_macos_models_import_and_commands_end_in_one_line(words):
    program = NOT_HERE + "import eva_backbone; eva_backbone.VisionTransformer\n"
    program += f"sys.argv[1:] = {words!r}\nfrom eva_command.main import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert "Linux" in ended.stderr
