"""`eva plan` beside the peak of the same training, or the plans of all recipes.

    python benchmarks/memory_plan.py [PART OF A NAME]
    python benchmarks/memory_plan.py --recipes [TASK]

Measured is the largest sum of what PyTorch has allocated while a process trains for some steps on
demo data: on a GPU where there is one, else on the CPU, from the first backward pass on, since
weights are loaded there. Of detection's recipes a process takes one image.
"""

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import here, with_peak
from safetensors.torch import save_file

from eva_backbone import build_vit
from eva_runs.commands import DEMO_DATA
from eva_runs.memory import CARDS, MODULES, SETTINGS, fits, plan
from eva_runs.recipes import TASKS, list_recipes

DATA = "output/datasets/digit_scenes/coco"
PAIRS = "output/datasets/digit_captions/captions"
MMENGINE = "train_cfg.max_iters=20 train_cfg.val_interval=99 --work-dir run "
MMENGINE += "train_dataloader.num_workers=0 train_dataloader.persistent_workers=False"
ENGINE = "--epochs 1 run.evaluate_every=0 run.workers=0 run.output=run"
BASE = "base.safetensors"
LARGE = f"""--train-annotations {DATA}/annotations/instances_train.json --image-size 512
    --train-images {DATA}/train --val-share 0.01 dataloader.train.num_workers=0 train.max_iter=2
    train.amp.enabled=False train.accumulate=1 train.output_dir=run train.init_checkpoint="""
FULL = LARGE.replace("--image-size 512", "").replace("train.amp.enabled=False", "")
RUNS = {  # task and recipe -> words of a short run
    "detection demo/cascade_mask_rcnn_vitdet_eva_debug": "train.max_iter=60 train.output_dir=run",
    "mmdetection demo/cascade_mask_rcnn_eva_debug": MMENGINE,
    "segmentation demo/mask2former_eva_debug": MMENGINE,
    "segmentation demo/upernet_eva_debug": MMENGINE,
    **{f"classification eva_debug_digits{kind}": ENGINE for kind in ("", "_mixed", "_linear")},
    "pretrain eva_debug_digit_scenes": ENGINE,
    "pretrain eva_debug_distill": ENGINE,
    "video eva_debug_motion": ENGINE,
    "clip eva_debug_captions": f"{ENGINE} data.train={PAIRS}/train/00000.tar "
    f"data.val={PAIRS}/val/00000.tar",
    "detection custom/cascade_mask_rcnn_vitdet_eva_g_24gb": LARGE,
    "detection custom/cascade_mask_rcnn_vitdet_eva_g_lora_12gb": LARGE + BASE,
    "detection custom/cascade_mask_rcnn_vitdet_eva_l_24gb": FULL,
}
REFUSED = ValueError, SystemExit, FileNotFoundError  # of a teacher that is not here


def command(folder: str, *words: str) -> str:
    """Run a command of Python in a folder; its output."""
    call = [sys.executable, *words]
    return subprocess.run(call, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def compare(part: str) -> None:
    """Plan recipes, and train each in a process of its own on small demo data."""
    print("| recipe | plan, GiB | measured, GiB | plan / measured |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for data, more in DEMO_DATA.items():
            words = ["data", "make-demo", "--output", f"output/datasets/{data}", *more]
            command(folder, "-m", "eva_command", *words, "--train", "130", "--val", "20")
        for name in (run for run in RUNS if part in run):
            task, recipe = name.split()
            if BASE in RUNS[name]:  # of random numbers, which adapters need
                save_file(build_vit("eva_g_patch16").half().state_dict(), Path(folder, BASE))
            planned = plan(MODULES[task], [recipe, *RUNS[name].split()])["peak"] / 2**30
            words = command(folder, str(Path(__file__).resolve()), "--measure", name).split()
            measured = float(words[-1])
            print(
                f"| {name} | {planned:.3f} | {measured:.3f} | {planned / measured:.2f} |",
                flush=True,
            )
            shutil.rmtree(Path(folder, "run"))


def measure(name: str) -> None:
    """Train in this process, and print the peak."""
    task, recipe = name.split()
    sys.argv = ["eva", task, "train", recipe, *RUNS[name].split()]

    def train() -> None:
        try:
            runpy.run_module("eva_command", run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise

    print(with_peak(train, here(), since="autograd::")[1])


def list_plans(tasks: Sequence[str]) -> None:
    """Plan all recipes of some tasks; those with equal figures share a row."""
    print("| recipes | M parameters | trained | step | pixels | fp32 | bf16, GiB | fits, GB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for task in tasks:
        rows: dict[tuple[str, ...], list[str]] = {}
        for recipe in list_recipes(task):
            words = [str(recipe.path), *(["--batch", "1"] if task == "detection" else [])]
            full, half = (
                plan(MODULES[task], [*words, *extra], REFUSED) for extra in SETTINGS[task][:2]
            )
            if full and half:
                sizes = [f"{half[key] / 1e6:,.0f}" for key in ("parameters", "trainable")]
                peaks = [f"{usage['peak'] / 2**30:.1f}" for usage in (full, half)]
                cards = [str(card) for card in CARDS if fits(half, card * 10**9)]
                step = f"{half['batch']} x {half['accumulate']}", str(half["side"])
                figures = (*sizes, *step, *peaks, *(cards or "-")[:1])
                rows.setdefault(figures, []).append(recipe.name)
        for figures, names in rows.items():
            print(f"| {task} `{'`, `'.join(names)}` | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    os.environ |= {"DS_ACCELERATOR": here().type, "DETECTRON2_DATASETS": "output/datasets"}
    match sys.argv[1:]:
        case ["--measure", name]:
            measure(name)
        case ["--recipes", *tasks]:
            list_plans(tasks or TASKS)
        case words:
            compare((words or ["debug"])[0])
