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
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24
_IGNORED = ("time", "eta", "memory", "per_second", "mfu", "flops", "gib")
_PATIENCE = 300  # seconds for a start, however slow the machine


class Trainer:
    """What the attack has to know of a trainer.

    Attributes:
        main: Its command line; takes the process's arguments.
        length: Factor of the steps of a run.
    """

    formats: str

    def __init__(self, data: Path, length: int = 1) -> None:
        self.data, self.length = data, length
        self.main: Callable[[], None] = self._import()

    def _import(self) -> Callable[[], None]:
        raise NotImplementedError

    def arguments(self, folder: Path) -> list[str]:
        """Command line of a run that continues where there is something to continue."""
        raise NotImplementedError

    def numbers(self, folder: Path) -> dict[str, float]:
        """Every logged number that is not a time; "step name" -> value."""
        raise NotImplementedError

    def weights(self, folder: Path) -> dict[str, Any]:
        """The tensors at the end."""
        raise NotImplementedError


class _EngineTrainer(Trainer):
    def _shared(self, folder: Path, size: int) -> list[str]:
        values = {"output": folder, "epochs": 2 * self.length, "batch-size": size, "workers": 1}
        values |= {"device": "cpu", "checkpoint-every": 3, "ema-decay": 0.9}
        values |= {"evaluate-every": self.length}
        options = [text for name, value in values.items() for text in (f"--run.{name}", str(value))]
        return [*options, "--run.resume"]

    def numbers(self, folder: Path) -> dict[str, float]:
        return _numbers(folder.glob("metrics.jsonl"), "step")

    def weights(self, folder: Path) -> dict[str, Any]:
        from safetensors.torch import load_file

        last = sorted((folder / "checkpoints").glob("step_*"))[-1]
        return {
            f"{file.name} {name}": value
            for file in sorted(last.glob("*.safetensors"))
            for name, value in load_file(file).items()
        }


class Pretrain(_EngineTrainer):
    """Masked-image pre-training."""

    formats = "coco"

    def _import(self) -> Callable[[], None]:
        from eva_pretrain.train_command import main

        return main

    def arguments(self, folder: Path) -> list[str]:
        """See `Trainer`."""
        scenes = self.data / "digit_scenes/coco"
        data = ["--data.train", str(scenes / "train"), "--data.val", str(scenes / "val")]
        recipe = ROOT / "pretrain/configs/eva_debug_digit_scenes.py"
        return [str(recipe), *self._shared(folder, 4), *data]


class Classification(_EngineTrainer):
    """Fine-tuning of a classifier."""

    formats = "folder"

    def _import(self) -> Callable[[], None]:
        from eva_classification.commands import train as main

        return main

    def arguments(self, folder: Path) -> list[str]:
        """See `Trainer`."""
        digits = self.data / "digit_scenes/folder"
        data = ["--data.train", str(digits / "train"), "--data.val", str(digits / "val")]
        recipe = ROOT / "classification/configs/eva_debug_digits.py"
        return [str(recipe), *self._shared(folder, 12), *data]


class Video(_EngineTrainer):
    """Fine-tuning of a classifier of videos."""

    formats = "video"

    def _import(self) -> Callable[[], None]:
        from eva_video.commands import train as main

        return main

    def arguments(self, folder: Path) -> list[str]:
        """See `Trainer`."""
        clips = self.data / "digit_scenes/video"
        data = ["--data.train", str(clips / "train"), "--data.val", str(clips / "val")]
        small = {"variant": "eva_debug", "init-checkpoint": "eva_debug", "image-size": 32}
        small |= {"frames": 4, "frozen-blocks": 1}
        model = [text for name, value in small.items() for text in (f"--model.{name}", str(value))]
        mixing = ["--augment.mixup", "0.8", "--augment.cutmix", "1", "--augment.pairing", "permute"]
        run = ["--run.accumulate", "1", "--run.precision", "fp32"]
        recipe = ROOT / "video/configs/own_videos.py"
        return [str(recipe), *self._shared(folder, 4), *data, *model, *mixing, *run]


class Clip(_EngineTrainer):
    """Contrastive training on shards, with cached features of two micro-batches."""

    formats = "captions"

    def _import(self) -> Callable[[], None]:
        from eva_contrastive.commands import train as main

        return main

    def arguments(self, folder: Path) -> list[str]:
        """See `Trainer`."""
        pairs = self.data / "digit_scenes/captions"
        data = ["--data.train", str(pairs / "train/00000.tar")]
        data += ["--data.val", str(pairs / "val/00000.tar")]
        data += ["--data.zero-shot", str(pairs / "zero_shot")]
        data += ["--data.templates", str(pairs / "templates.txt")]
        model = ["--model.drop-path-rate", "0.2", "--model.patch-dropout", "0.25"]
        recipe = ROOT / "clip/configs/eva_debug_captions.py"
        return [str(recipe), *self._shared(folder, 6), "--run.accumulate", "2", *data, *model]


class Detection(Trainer):
    """Cascade Mask R-CNN."""

    formats = "coco"

    def _import(self) -> Callable[[], None]:
        from eva_detection.command_line import train as main

        return main

    def arguments(self, folder: Path) -> list[str]:
        """See `Trainer`."""
        recipe = ROOT / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
        values = [f"train.max_iter={STEPS * self.length}", "train.checkpointer.period=3"]
        values += [f"train.eval_period={12 * self.length}"]
        values += [f"train.output_dir={folder}", "train.log_period=1"]
        values += ["dataloader.train.total_batch_size=2"]
        return ["--config-file", str(recipe), "--resume", *values]

    def numbers(self, folder: Path) -> dict[str, float]:
        return _numbers(folder.glob("metrics.json"), "iteration")

    def weights(self, folder: Path) -> dict[str, Any]:
        from eva_backbone.checkpoints.reading import read_weights

        return read_weights(folder / "model_final.pth")


class Segmentation(Trainer):
    """ViT-Adapter and Mask2Former."""

    formats = "semantic"

    def _import(self) -> Callable[[], None]:
        from eva_segmentation.commands import train as main

        return main

    recipe = "segmentation/configs/demo/mask2former_eva_debug.py"

    def arguments(self, folder: Path) -> list[str]:
        """See `Trainer`."""
        recipe = ROOT / self.recipe
        values = [f"train_cfg.max_iters={STEPS * self.length}"]
        values += [f"train_cfg.val_interval={12 * self.length}"]
        values += ["default_hooks.checkpoint.interval=3", "default_hooks.logger.interval=1"]
        values += ["train_dataloader.batch_size=2", "train_dataloader.num_workers=1"]
        data = ["--data-root", str(self.data / "digit_scenes" / self.formats)]
        return [str(recipe), "--resume", *data, "--work-dir", str(folder), "--cfg-options", *values]

    def numbers(self, folder: Path) -> dict[str, float]:
        return _numbers(sorted(folder.glob("*/vis_data/scalars.json")), "step")

    def weights(self, folder: Path) -> dict[str, Any]:
        from eva_backbone.checkpoints.reading import read_weights

        return read_weights(folder / f"iter_{STEPS * self.length}.pth")


class Mmdetection(Segmentation):
    """Cascade Mask R-CNN in mmdetection; the run is mmengine's, as a segmentor's."""

    formats = "coco"
    recipe = "mmdetection/configs/demo/cascade_mask_rcnn_eva_debug.py"

    def _import(self) -> Callable[[], None]:
        from eva_mmdetection.commands import train as main

        return main


TRAINERS = {
    "pretrain": Pretrain,
    "classification": Classification,
    "video": Video,
    "clip": Clip,
    "detection": Detection,
    "segmentation": Segmentation,
    "mmdetection": Mmdetection,
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
    sys.argv = [f"{type(trainer).__name__.lower()}.py", *trainer.arguments(folder)]
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
        trainer = kind(work / "data")
        row = attack(trainer, work, kills=args.kills, in_saves=args.in_saves, seed=args.seed)
    cells = " | ".join(str(value) for value in row.values())
    sys.stdout.write(f"| trainer | {' | '.join(row)} |\n| {args.trainer} | {cells} |\n")
    bad = row["different"] + row["failed"] + row["orphans"]
    sys.exit(bool(bad or row["in saves"] < args.in_saves))


if __name__ == "__main__":
    main()
