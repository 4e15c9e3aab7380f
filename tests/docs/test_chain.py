"""The commands of pretrain/README.md from pre-training to every task, with fewer steps."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eva_backbone import load_vit
from eva_runs.recipes import TASKS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "pretrain" / "README.md").read_text()
_CAPTIONS = "output/datasets/digit_captions/captions"
SHORTER = {  # program -> what is added to its arguments
    "tools/make_demo_data.py": "--train 16 --val 8 --workers 1",
    "pretrain/train.py": "--run.epochs 1 --run.batch-size 8",
    "tools/eva_command/__main__.py": "",
    "detection/train_net.py": "train.max_iter=1 dataloader.train.total_batch_size=2",
    "mmdetection/train.py": "train_cfg.max_iters=1 train_dataloader.batch_size=2",
    "segmentation/train.py": "train_cfg.max_iters=1 train_dataloader.batch_size=2",
    "classification/train.py": "--run.epochs 1",
    "video/train.py": "--run.epochs 1 --run.batch-size 8",
    "clip/train.py": "--run.epochs 1 --run.batch-size 16 "
    f"--data.train {_CAPTIONS}/train/00000.tar --data.val {_CAPTIONS}/val/00000.tar",
}
# What takes time to import is imported once (`starter.py`); each command is a process that goes on
# from there.
RUNNER = """
import json, multiprocessing, os, runpy, sys

def run(root, environment, program, arguments):
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    runpy.run_path(os.path.join(root, program), run_name="__main__")

for command in json.loads(sys.argv[1]):
    process = multiprocessing.get_context("fork").Process(target=run, args=command)
    process.start()
    process.join()
    print(f"## {command[2]}: {process.exitcode}", flush=True)
    if process.exitcode:
        sys.exit(1)
"""


def commands():
    """Environment, program and arguments of each line of the section."""
    (text,) = re.findall(
        r"^## From pre-training to every task\n.*?```bash\n(.*?)```", PAGE, re.M | re.S
    )
    environment = {}
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words[:1] == ["export"]:
            environment |= dict([words[1].split("=", 1)])
        elif words:
            if words[0] == "eva":
                words[:1] = ["python", "tools/eva_command/__main__.py"]
            assert words[0] == "python"
            yield environment, words[1], [*words[2:], *shlex.split(SHORTER[words[1]])]


@pytest.fixture(scope="module")
def chain(run_started, tmp_path_factory):
    """The folder in which all commands were run, and what they printed."""
    folder = tmp_path_factory.mktemp("chain")
    path = os.pathsep.join([str(ROOT), *(str(ROOT / name) for name in (*TASKS, "core", "tools"))])
    environment = os.environ | {"PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}
    lines = [(str(ROOT), *command) for command in commands()]
    done = run_started("-c", RUNNER, json.dumps(lines), folder=folder, environment=environment)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return folder, done.stdout


def test_every_command_succeeds(chain):
    _, printed = chain
    ran = re.findall(r"^## (\S+): 0$", printed, re.M)
    assert ran == [program for _, program, _ in commands()]
    assert {f"{task}/train.py" for task in TASKS} - {"detection/train.py"} <= {*ran}


def test_every_task_began_with_the_exported_weights(chain):
    """After a step or two the backbone is close to the export, which is far from the bundle."""
    folder, _ = chain
    exported = torch.load(folder / "output/pretrained.pt", weights_only=True)["model"]
    name, close = "blocks.0.attn.proj.weight", 0.02
    bundled = load_vit("eva_debug").state_dict()
    assert (bundled[name] - exported[name]).abs().max() > 5 * close
    runs = folder / "output/chain"
    files = {
        "detection": (runs / "detection/model_final.pth", f"backbone.net.{name}"),
        "mmdetection": (runs / "mmdetection/iter_1.pth", f"backbone.net.{name}"),
        "segmentation": (runs / "segmentation/iter_1.pth", f"backbone.{name}"),
    }
    for task, (file, key) in files.items():
        content = torch.load(file, weights_only=False)
        state = content.get("model", content.get("state_dict"))
        assert (state[key] - exported[name]).abs().max() < close, task
    for task in ("classification", "video", "clip"):
        (file,) = (runs / task / "checkpoints").glob("*/model.safetensors")
        state = load_file(file)
        (key,) = [key for key in state if key.endswith(name) and "text" not in key]
        assert (state[key] - exported[name]).abs().max() < close, task
