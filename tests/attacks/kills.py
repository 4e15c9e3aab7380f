"""Kills training runs with SIGKILL, at random moments and inside saves, and compares their ends.

    python tests/attacks/kills.py detection --kills 50 --in-saves 15

A run is started again with its continuation option until it ends, and the next run begins, until so
many kills are done. What must hold: every run ends by itself once it is left alone; each number in
its logs and every saved tensor equals that of a run which nobody disturbed; no data worker outlives
its run. Prints a line of the table in docs/reliability.md; exit code 1 if anything differs.

The trainers run on the CPU on small demo data, which is made first, each start forked from a
process that has imported the trainer.
"""

import argparse
import importlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24
_IGNORED = ("time", "eta", "memory", "per_second", "mfu", "flops", "gib")
_PATIENCE = 300  # seconds for a start, however slow the machine


class Kind(NamedTuple):
    """A trainer: its demo data, command and files.

    Attributes:
        formats: Format of the demo data.
        recipe: File of the recipe.
        main: Module and function of its command line, which takes the process's arguments.
        words: Words of the command behind the recipe; `data`, `folder`, `steps`, `epochs` and
            `half`, which is the number of steps between evaluations, are filled in.
        logs: Pattern of its logs.
        step: Name of the step in a line of them.
        weights: Pattern of its last weights.
    """

    formats: str
    recipe: str
    main: str
    words: str
    logs: str
    step: str
    weights: str


def _engine(formats: str, recipe: str, main: str, size: int, more: str) -> Kind:
    words = "--run.output {folder} --run.epochs {epochs} --run.workers 1 --run.device cpu "
    words += "--run.checkpoint-every 3 --run.ema-decay 0.9 --run.evaluate-every {length} "
    words += f"--run.batch-size {size} --run.resume {more}"
    files = ("metrics.jsonl", "step", "checkpoints/step_*/*.safetensors")
    return Kind(formats, recipe, main, words, *files)


def _mmengine(formats: str, recipe: str, main: str) -> Kind:
    words = "--resume --data-root {data}/" + formats + " --work-dir {folder} --cfg-options "
    words += "train_cfg.max_iters={steps} train_cfg.val_interval={half} "
    words += "default_hooks.checkpoint.interval=3 default_hooks.logger.interval=1 "
    words += "train_dataloader.batch_size=2 train_dataloader.num_workers=1"
    files = ("*/vis_data/scalars.json", "step", "iter_{steps}.pth")
    return Kind(formats, recipe, main, words, *files)


TRAINERS = {
    "pretrain": _engine(
        "coco", "pretrain/configs/eva_debug_digit_scenes.py", "eva_pretrain.commands:train", 4,
        "--data.train {data}/coco/train --data.val {data}/coco/val",
    ),
    "classification": _engine(
        "folder", "classification/configs/eva_debug_digits.py", "eva_classification.commands:train",
        12, "--data.train {data}/folder/train --data.val {data}/folder/val",
    ),
    "video": _engine(
        "video", "video/configs/own_videos.py", "eva_video.commands:train", 4,
        "--data.train {data}/video/train --data.val {data}/video/val --model.variant eva_debug "
        "--model.init-checkpoint eva_debug --model.image-size 32 --model.frames 4 "
        "--model.frozen-blocks 1 --augment.mixup 0.8 --augment.cutmix 1 --augment.pairing permute "
        "--run.accumulate 1 --run.precision fp32",
    ),
    # with cached features of two micro-batches
    "clip": _engine(
        "captions", "clip/configs/eva_debug_captions.py", "eva_contrastive.commands:train", 6,
        "--run.accumulate 2 --data.train {data}/captions/train/00000.tar "
        "--data.val {data}/captions/val/00000.tar --data.zero-shot {data}/captions/zero_shot "
        "--data.templates {data}/captions/templates.txt --model.drop-path-rate 0.2 "
        "--model.patch-dropout 0.25",
    ),
    "detection": Kind(
        "coco", "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py",
        "eva_detection.command_line:train",
        "--resume train.max_iter={steps} train.checkpointer.period=3 train.eval_period={half} "
        "train.output_dir={folder} train.log_period=1 dataloader.train.total_batch_size=2",
        "metrics.json", "iteration", "model_final.pth",
    ),
    "segmentation": _mmengine(
        "semantic", "segmentation/configs/demo/mask2former_eva_debug.py",
        "eva_segmentation.commands:train",
    ),
    "mmdetection": _mmengine(
        "coco", "mmdetection/configs/demo/cascade_mask_rcnn_eva_debug.py",
        "eva_mmdetection.commands:train",
    ),
}  # fmt: skip


class Trainer:
    """A trainer with its data, imported.

    Args:
        name: Its name in `TRAINERS`.
        data: Folder of the demo data.
        length: Factor of the steps of a run.
    """

    def __init__(self, name: str, data: Path, length: int = 1) -> None:
        self.name, self.kind = name, TRAINERS[name]
        self._values = {
            "data": data / "digit_scenes", "steps": STEPS * length, "half": 12 * length,
            "epochs": 2 * length, "length": length,
        }  # fmt: skip
        module, _, function = self.kind.main.partition(":")
        self.main: Callable[[], None] = getattr(importlib.import_module(module), function)

    def arguments(self, folder: Path) -> list[str]:
        """Command line of a run that continues where there is something to continue."""
        values = {**self._values, "folder": folder}
        words = [word.format(**values) for word in self.kind.words.split()]
        return [str(ROOT / self.kind.recipe), *words]

    def numbers(self, folder: Path) -> dict[str, float]:
        """Every logged number that is not a time; "step name" -> value."""
        return _numbers(sorted(folder.glob(self.kind.logs)), self.kind.step)

    def weights(self, folder: Path) -> dict[str, Any]:
        """The tensors at the end."""
        from eva_backbone.checkpoints.reading import read_weights

        files = sorted(folder.glob(self.kind.weights.format(**self._values)))
        return {
            f"{file.name} {name}": value
            for file in files
            if file.parent == files[-1].parent
            for name, value in read_weights(file).items()
        }


def _numbers(files: Any, step: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the line that a kill tore
            if step not in entry:
                continue
            for name, value in entry.items():
                if isinstance(value, int | float) and not any(word in name for word in _IGNORED):
                    key = f"{entry[step]} {name}"
                    while key in found:  # which no undisturbed run has
                        key += " again"
                    found[key] = value
    return found


def start(trainer: Trainer, folder: Path, log: Path) -> int:
    """Fork a run; gives its process, which leads a group of its own."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [f"{trainer.name}.py", *trainer.arguments(folder)]
    code: Any = 1
    try:
        trainer.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int | None) else 1
        if code == 1:
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code or 0)  # the fork of a test's process, which has nothing to tidy up


def in_a_save(folder: Path) -> bool:
    """Whether an unfinished file of a save lies in the folder."""
    return any(
        ".writing" in entry.name
        for place in (folder, folder / "checkpoints")
        if place.is_dir()
        for entry in os.scandir(place)
    )


def wait(pid: int, folder: Path, moment: float, *, save: bool) -> str:
    """Let a run go on to its end or to a kill: "ended N", "killed" or "killed in a save"."""
    begin = time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        now = time.monotonic() - begin
        if done:
            return f"ended {os.waitstatus_to_exitcode(status)}"
        if now >= moment:
            inside = in_a_save(folder)
            if inside or not save:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                inside = in_a_save(folder)  # what the kill left, not what was seen before it
                return "killed in a save" if inside else "killed"
        if now > _PATIENCE + moment:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hung"
        time.sleep(0.0005 if save and now >= moment else 0.005)


def orphans(pid: int) -> bool:
    """Whether processes of a dead run's group are still there after a while."""
    for _ in range(300):
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    os.killpg(pid, signal.SIGKILL)
    return True


def same(trainer: Trainer, undisturbed: Path, other: Path) -> list[str]:
    """What differs between two runs."""
    wanted, got = trainer.numbers(undisturbed), trainer.numbers(other)
    differences = [
        f"{key}: {wanted.get(key)} -> {got.get(key)}"
        for key in sorted(wanted.keys() | got.keys())
        if not _equal(wanted.get(key), got.get(key))
    ]
    if not wanted:
        differences.append("no number was compared")
    return differences + same_weights(trainer, undisturbed, other)


def same_weights(trainer: Trainer, undisturbed: Path, other: Path) -> list[str]:
    """Which tensors differ between the ends of two runs."""
    import torch

    first, second = trainer.weights(undisturbed), trainer.weights(other)
    if not first:
        return ["no tensor was compared"]
    return [
        f"tensor {key}"
        for key in sorted(first.keys() | second.keys())
        if key not in first or key not in second or not torch.equal(first[key], second[key])
    ]


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


def attack(trainer: Trainer, work: Path, *, kills: int, in_saves: int, seed: int) -> dict[str, int]:
    """Carry out the attack; gives the row of the table."""
    chance = random.Random(seed)
    log = work / "log.txt"
    begin = time.monotonic()
    outcome = wait(
        start(trainer, work / "undisturbed", log), work / "undisturbed", math.inf, save=False
    )
    length = time.monotonic() - begin
    if outcome != "ended 0":
        raise SystemExit(f"the undisturbed run {outcome}, see {log}")
    row = dict.fromkeys(("kills", "in saves", "runs", "equal", "different", "orphans", "failed"), 0)
    while row["kills"] < kills:
        row["runs"] += 1
        folder = work / f"run_{row['runs']}"
        for _ in range(12):  # kills of one run
            save = row["in saves"] < in_saves and chance.random() < 0.5
            moment = chance.uniform(0, 0.8 * length) if row["kills"] < kills else math.inf
            pid = start(trainer, folder, log)
            outcome = wait(pid, folder, moment, save=save)
            row["orphans"] += orphans(pid)
            if not outcome.startswith("killed"):
                break
            row["kills"] += 1
            row["in saves"] += outcome == "killed in a save"
        while outcome.startswith("killed"):
            outcome = wait(start(trainer, folder, log), folder, math.inf, save=False)
        if outcome != "ended 0":
            row["failed"] += 1
            sys.stderr.write(f"{folder} {outcome}, see {log}\n")
            continue
        differences = same(trainer, work / "undisturbed", folder)
        row["different" if differences else "equal"] += 1
        for line in differences[:10]:
            sys.stderr.write(f"{folder.name}: {line}\n")
        if not differences:
            shutil.rmtree(folder)
        sys.stderr.write(f"{row}\n")
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("trainer", choices=TRAINERS)
    parser.add_argument("--kills", type=int, default=50, help="in all")
    parser.add_argument("--in-saves", type=int, default=15, help="how many of them inside saves")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", metavar="DIR", help="folder of the runs (default: a temporary)")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with tempfile.TemporaryDirectory(prefix="eva_kills_") as temporary:
        work = Path(args.keep or temporary).absolute()
        work.mkdir(parents=True, exist_ok=True)
        kind = TRAINERS[args.trainer]
        sizes = ("--train", "48", "--val", "6", "--workers", "1", "--formats", kind.formats)
        make = (sys.executable, str(ROOT / "tools/make_demo_data.py"), "--overwrite")
        subprocess.run([*make, *sizes, "--output", str(work / "data/digit_scenes")], check=True)
        os.environ["DETECTRON2_DATASETS"] = str(work / "data")
        trainer = Trainer(args.trainer, work / "data")
        row = attack(trainer, work, kills=args.kills, in_saves=args.in_saves, seed=args.seed)
    cells = " | ".join(str(value) for value in row.values())
    sys.stdout.write(f"| trainer | {' | '.join(row)} |\n| {args.trainer} | {cells} |\n")
    bad = row["different"] + row["failed"] + row["orphans"]
    sys.exit(bool(bad or row["in saves"] < args.in_saves))


if __name__ == "__main__":
    main()
