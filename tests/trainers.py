"""A small training of each trainer: its command line, and what it leaves in its folder.

Not a test. `Trainers` makes them of demo data; six steps of a framework, or eight of two epochs of
the engine, save after each third.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
ENGINE = ("pretrain", "classification", "video", "clip")
FRAMEWORKS = ("detection", "mmdetection", "segmentation")
TIMES = re.compile("time|eta|memory|per_second|tflops")
SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64}
SMALL_DETECTION = (
    "demo/cascade_mask_rcnn_vitdet_eva_debug", "train.init_checkpoint=", "train.seed=3",
    "train.progress_bar=False", "train.log_period=1", "train.device=cpu", "train.eval_period=0",
    "dataloader.train.num_workers=0", "dataloader.train.total_batch_size=2",
    "model.backbone.net.global_attn_indexes=[1]", "model.roi_heads.override_score_thresh=0.0",
    *(f"model.backbone.net.{key}={value}" for key, value in SMALL_VIT.items()),
)  # fmt: skip
SMALL_MMENGINE = """
_base_ = {base!r}
load_from = None
randomness = dict(seed=3)
model = dict(backbone=dict({vit}{more}){heads})
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1))
"""
RECIPES = {
    "pretrain": "eva_debug_digit_scenes",
    "classification": "eva_debug_digits",
    "video": "eva_debug_motion",
    "clip": "eva_debug_captions",
}
BATCHES = {"pretrain": 4, "classification": 24, "video": 8, "clip": 24}  # 4 steps in an epoch


def read_log(file: Path) -> list[dict[str, Any]]:
    """Read a log of JSON lines without times; nothing where it is not there."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [
        {key: value for key, value in sorted(json.loads(line).items()) if not TIMES.search(key)}
        for line in lines
    ]


@dataclass(frozen=True)
class Trainer:
    """A training of a framework.

    Attributes:
        train: Words of its command.
        output: Option of the output folder.
        steps: Settings of steps and checkpoints.
        variables: Of the environment.
        final: Pattern of the last weights.
        workers: Setting of data workers.
        typo: A mistyped setting.
    """

    name: str
    train: tuple[Any, ...]
    output: str
    steps: str
    final: str
    workers: str
    typo: str
    variables: Mapping[str, Any]
    length: int = 6
    resume: tuple[str, ...] = ("--resume",)
    fresh: tuple[str, ...] = ()  # of a run that must not continue

    @property
    def loss(self):
        """Name of the loss in the logs."""
        return "total_loss" if self.name == "detection" else "loss"

    def command(self, output, *more, steps=None, period=3, processes=1):
        """Words of the command line."""
        settings = self.steps.format(steps=steps or self.length, period=period).split()
        words = [*self.train, *settings, *f"{self.output}{output}".split(" "), *more]
        if processes == 1:
            return words
        return ["torchrun", "--nproc-per-node", processes, "-m", "eva_command", *words[1:]]

    def checkpoint(self, step):
        """Name of what is saved at a step."""
        return f"model_{step - 1:07d}.pth" if self.name == "detection" else f"iter_{step}.pth"

    def last(self, output):
        """Name of the checkpoint that a run would continue from."""
        return (output / "last_checkpoint").read_text().rpartition("/")[2]

    def weights(self, output, steps=None):
        """Name -> tensor of the last checkpoint."""
        file = output / self.final.format(steps=steps or self.length)
        content = torch.load(file, weights_only=self.name == "detection")  # written by these tests
        return content["model" if self.name == "detection" else "state_dict"]

    def logged(self, output):
        """Numbers of each line of the logs that are no times."""
        files = [*output.glob("metrics.json*"), *sorted(output.glob("*/vis_data/scalars.json"))]
        return [line for file in files for line in read_log(file)]

    def assert_same_end(self, output, other, **steps):
        """Two runs logged the same numbers and have the same last weights, bit for bit."""
        self.assert_same_weights(output, other, **steps)
        ours, expected = (list(map(str, self.logged(folder))) for folder in (output, other))
        different = {*ours} ^ {*expected}  # as text, in which NaN is itself
        assert ours == expected, sorted(different)

    def assert_same_weights(self, output, other, **steps):
        """Two runs have the same last weights, bit for bit."""
        ours, expected = (self.weights(folder, **steps) for folder in (output, other))
        assert ours.keys() == expected.keys() != set()
        assert all(torch.equal(ours[name], expected[name]) for name in expected)


class EngineTrainer(Trainer):
    """A training of `eva_engine`."""

    def checkpoint(self, step):
        """Name of what is saved at a step."""
        return f"step_{step:08d}"

    def last(self, output):
        """Name of the newest checkpoint."""
        return max((folder.name for folder in output.glob("checkpoints/step_*")), default="")

    def weights(self, output, steps=None):
        """Tensors of all files of the last checkpoint."""
        folder = output / "checkpoints" / (self.checkpoint(steps) if steps else self.last(output))
        return {
            f"{file.relative_to(folder)} {name}": tensor
            for file in folder.rglob("*.safetensors")
            for name, tensor in load_file(file).items()
        }


class Trainers:
    """Makes the trainings.

    Args:
        demo: Function that makes demo data of formats.
        folder: Function that gives a new folder of a name.
    """

    def __init__(self, demo, folder):
        self._demo, self._folder = demo, folder
        self._made: dict[str, Trainer] = {}

    def __call__(self, name: str) -> Trainer:
        """Return the training of a name."""
        if name not in self._made:
            self._made[name] = self._engine(name) if name in ENGINE else self._framework(name)
        return self._made[name]

    def _framework(self, name: str) -> Trainer:
        if name == "detection":
            return Trainer(
                name,
                train=("eva", name, "train", *SMALL_DETECTION),
                output="train.output_dir=",
                steps="train.max_iter={steps} train.checkpointer.period={period}",
                final="model_final.pth",
                workers="dataloader.train.num_workers=",
                typo="train.max_itre",
                variables={"DETECTRON2_DATASETS": self._demo("coco").parent},
            )
        recipe, data, more, heads = {
            "mmdetection": (
                "cascade_mask_rcnn_eva_debug", "coco", ", global_attn_indexes=[1]",
                ", test_cfg=dict(rcnn=dict(score_thr=0.0))",
            ),
            "segmentation": ("upernet_eva_debug", "semantic", "", ""),
        }[name]  # fmt: skip
        config, vit = (
            self._folder(name) / "small.py",
            ", ".join(f"{key}={value}" for key, value in SMALL_VIT.items()),
        )
        base = str(ROOT / name / f"configs/demo/{recipe}.py")
        config.write_text(SMALL_MMENGINE.format(base=base, vit=vit, more=more, heads=heads))
        return Trainer(
            name,
            train=("eva", name, "train", config, "--data-root", self._demo(data) / data),
            output="--work-dir ",
            steps="train_cfg.max_iters={steps} train_cfg.val_interval={steps} "
            "default_hooks.checkpoint.interval={period}",
            final="iter_{steps}.pth",
            workers="train_dataloader.num_workers=",
            typo="train_cfg.max_itres",
            variables={},
        )

    def _engine(self, name: str) -> Trainer:
        data = self._demo("folder", "video", "captions", train=32, val=8)
        pairs = data / "captions"
        train, val, *more = {
            "pretrain": (pairs / "zero_shot", pairs / "zero_shot"),
            "classification": (
                data / "folder/train", data / "folder/val", "--model.image-size", 32
            ),
            "video": (data / "video/train", data / "video/val"),
            "clip": (
                pairs / "train/00000.tar", pairs / "val/00000.tar", "--model.image-size", 32,
                "--data.zero-shot", pairs / "zero_shot", "--data.templates",
                pairs / "templates.txt",
            ),
        }[name]  # fmt: skip
        words = (
            "eva", name, "train", RECIPES[name], "--data.train", train, "--data.val", val, *more,
            "--run.epochs", 2, "--run.batch-size", BATCHES[name], "--run.workers", 0,
            "--run.device", "cpu", "--run.evaluate-every", 1, "--run.keep-checkpoints", 9,
            "--run.no-tensorboard", "--run.resume",
        )  # fmt: skip
        return EngineTrainer(
            name,
            train=words,
            output="--run.output ",
            steps="--run.checkpoint-every {period}",
            final="",
            workers="--run.workers=",
            typo="--run.epoch",
            variables={},
            length=8,
            resume=(),
            fresh=("--run.no-resume",),
        )
