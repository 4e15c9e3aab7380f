"""Small models and one training step of each project, for tests of devices.

Not a test itself: the tests of a second device on a CPU and those on a GPU share it. Parts are
imported where they are needed, for the frameworks are slow.
"""

import copy
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from eva_backbone import SimpleFeaturePyramid, VisionTransformer
from eva_runs.data_order import Batch, to_device

ROOT = Path(__file__).parents[1]
SIZES = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 48, "drop_path_rate": 0.4}
SMALL = SIZES | {"img_size": 64, "patch_size": 16}
WINDOWS = {"extra_tokens": (), "window_size": 3, "global_attn_indexes": (1,), "final_norm": False}
DIM, CODES = 8, 12  # of the teacher's features, of the tokenizer
SIDE = 64  # of a segmentor's images


class Step(NamedTuple):
    """A training step.

    Attributes:
        model: The model, on the CPU, in training mode.
        batch: Batch as the project's loader gives it.
        loss: Function that computes the loss of model and batch.
        loop_copies: Whether the loop copies the batch to the device; else the model does.
    """

    model: nn.Module
    batch: Any
    loss: Callable[[nn.Module, Any], torch.Tensor]
    loop_copies: bool = True

    def run(self, model, device):
        """Seed, forward pass; the loss of a model that lies on a device."""
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 (timm's mixup draws from it)
        batch = copy.deepcopy(self.batch)  # timm's mixup changes it in place
        return self.loss(model, to_device(batch, device) if self.loop_copies else batch)


def _randn(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


# ---- the backbone ----------------------------------------------------------------------------
VITS = {
    "class token": {},
    "layer scale and checkpoints": {"layer_scale": 0.1, "activation_checkpointing": True},
    "every sample dropped": {"drop_path_rate": 0.999},
    "table": {"rel_pos": "table", "qkv_bias": "qkv"},
    "windows": WINDOWS,
    "windows, vitdet": WINDOWS | {"rel_pos": "vitdet"},
    "windows, beit": WINDOWS | {"rel_pos": "beit"},
    "windows, vitdet, checkpoints": WINDOWS
    | {"rel_pos": "vitdet", "activation_checkpointing": True},
}


def vit(kind):
    """A ViT at another size than that of its position embedding and tables."""
    sizes = SIZES | {"img_size": 80, "pretrain_img_size": 96, "patch_size": 16} | VITS[kind]
    model = VisionTransformer(**sizes).train()
    return Step(model, _randn(6, 3, 96, 80), lambda model, x: model(x).square().mean())


def pyramid():
    """The simple feature pyramid behind a map of patches."""
    model = SimpleFeaturePyramid(in_channels=16, out_channels=8).train()
    return Step(
        model, _randn(2, 16, 6, 4), lambda model, x: sum(y.square().mean() for y in model(x))
    )


# ---- pre-training and classification -----------------------------------------------------------


class Teacher(nn.Module):
    """Features that a convolution makes of the patches: (B, 3, 64, 64) -> (B, 16, DIM)."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, DIM, kernel_size=16, stride=16).requires_grad_(False)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


class _Objective(nn.Module):
    """Student, teacher and objective as one module, so that all of them change the device."""

    def __init__(self, student, objective):
        super().__init__()
        self.student, self.teacher, self.objective = student, Teacher(), objective

    def forward(self, batch):
        from eva_pretrain.masked_image_modeling import PretrainStep

        return PretrainStep(self.teacher, self.objective)(self.student, batch)[0]


def _tokenizer():
    from eva_pretrain.tokenizer import Codebook, FeatureTokenizer

    codebook = Codebook(num_codes=CODES, code_dim=4)
    return FeatureTokenizer(feature_dim=DIM, codebook=codebook, width=16, num_heads=2)


def tokenizer():
    """The tokenizer of features, with the moving average of its codes."""
    return Step(_tokenizer().train(), _randn(4, 16, DIM), lambda model, x: model(x)[0])


def pretraining(kind):
    """An objective on a batch as a run has it."""
    from eva_pretrain import masked_image_modeling as mim
    from eva_pretrain.tokenizer import MaskedTokens
    from eva_pretrain.training import alternating_mask

    masked, samples = kind != "distillation", [{"images": x} for x in _randn(6, 3, 64, 64)]
    if masked:
        samples = [s | {"mask": torch.as_tensor(alternating_mask((4, 4)))} for s in samples]
        samples[1]["mask"][0] = True  # images with different numbers of masked patches
    batch, objective = mim.collate(samples), mim.MaskedFeatures()
    if kind == "tokens":
        codes = _tokenizer()
        codes(Teacher()(batch["images"]))  # its first codes
        objective = MaskedTokens(codes.eval())
    student = mim.masked_image_modeling(
        "eva_debug",
        target_dim=CODES if kind == "tokens" else DIM,
        extra_tokens=("cls", "mask") if masked else ("cls",),
        **SMALL,
    )
    return Step(_Objective(student, objective).train(), batch, lambda model, batch: model(batch))


def _classify(model, augment, images):
    """A step of fine-tuning, in which a head of random weights has gradients beyond rounding."""
    from eva_engine.data.mixed_targets import ClassificationStep, MixedTargets

    for part in model.head.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.1)
    step = ClassificationStep(MixedTargets(augment, num_classes=5))
    batch = [images, torch.tensor([0, 1, 2, 3, 4, 0])]
    return Step(model.train(), batch, lambda model, batch: step(model, batch)[0])


def classification(kind):
    """Fine-tuning with and without mixup, and the linear probe."""
    from eva_classification.config import AugmentConfig
    from eva_classification.models import build_classifier, build_linear_probe

    if kind == "linear probe":
        model = build_linear_probe("eva_debug", num_classes=5, **SMALL | {"drop_path_rate": 0.0})
    else:
        pooling = "cls" if kind == "class token" else "mean"
        model = build_classifier("eva_debug", num_classes=5, pooling=pooling, **SMALL)
    mix = {"mixup": 0.8, "cutmix": 1.0} if kind == "mixed" else {}
    return _classify(model, AugmentConfig(**mix), _randn(6, 3, 64, 64))


def video(kind):
    """Fine-tuning on clips at another length than that of the positions."""
    from eva_video.config import AugmentConfig
    from eva_video.model.classifier import build_video_classifier

    checkpoints = {"activation_checkpointing": kind == "checkpoints"}
    model = build_video_classifier("eva_debug", num_classes=5, frames=4, **SMALL, **checkpoints)
    mix = {"mixup": 0.8, "cutmix": 1.0, "pairing": "permute"} if kind == "mixed" else {}
    return _classify(model, AugmentConfig(**mix), _randn(6, 3, 3, 64, 64))


# ---- CLIP ------------------------------------------------------------------------------------


def clip(**options):
    """A tiny CLIP, with features that differ."""
    from eva_contrastive.model.eva_clip import build_eva_clip

    torch.manual_seed(0)
    sizes = {"depth": 2, "img_size": 64, "patch_size": 16, "drop_path_rate": 0.4} | options
    model = build_eva_clip("eva_debug", "debug", embed_dim=DIM, **sizes)
    for weight in (model.visual.head.weight, model.text.text_projection):
        nn.init.normal_(weight, std=0.1)
    return model


def clip_pairs():
    """Six images and the tokens of their texts."""
    from eva_contrastive.model.eva_clip import tokenize

    texts = ["a dog", "two cats", "a photo of the number seven", "red", "a b c", "a car at night"]
    return _randn(6, 3, 64, 64), tokenize(texts, 32)


def contrastive(kind):
    """Contrastive training of two towers."""
    from eva_contrastive.step import ContrastiveStep, build_loss
    from eva_engine.steps.micro_batches import MicroBatches

    loss_fn = build_loss("sigmoid" if kind == "sigmoid" else "contrastive")
    options = {"patch_dropout": 0.5} if kind == "patch dropout" else {}
    model = clip(sigmoid=kind == "sigmoid", activation_checkpointing=kind == "checkpoints",
                 **options).train()  # fmt: skip
    model.text.set_grad_checkpointing(kind == "checkpoints")
    model.visual.requires_grad_(kind != "half frozen")

    def loss(model, pairs):
        step = ContrastiveStep(loss_fn)
        batches = iter([Batch(data=pairs, draws=[], unreadable={})])
        micro_batches = MicroBatches(batches, count=1, device=pairs[0].device, seeds=(0, 0))
        step.begin(model, micro_batches)
        (batch,) = micro_batches
        return step(model, batch)[0]

    return Step(model, clip_pairs(), loss)


# ---- detection -------------------------------------------------------------------------------
DETECTOR = ROOT / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
NET = ("depth=2", "embed_dim=32", "num_heads=2", "mlp_dim=64", "global_attn_indexes=[1]")


def detector(*overrides):
    """The debug detector with a tiny ViT and random weights."""
    from detectron2.config import LazyConfig, instantiate

    settings = [*(f"model.backbone.net.{setting}" for setting in NET), *overrides]
    cfg = LazyConfig.apply_overrides(LazyConfig.load(str(DETECTOR)), settings)
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    for predictor in model.roi_heads.box_predictor:  # else all scores are alike
        nn.init.normal_(predictor.cls_score.weight, std=0.1)
    return model


def detection_batch():
    """Two images with two objects each, as detectron2's mapper gives them."""
    from detectron2.structures import BitMasks, Boxes, Instances

    batch = []
    for height in (128, 100):
        boxes = torch.tensor([[10.0, 10, 50, 50], [60, 30, 90, 80]])
        masks = torch.zeros(2, height, 128, dtype=torch.bool)
        masks[0, 10:50, 10:50] = masks[1, 30:80, 60:90] = True
        truth = Instances((height, 128), gt_boxes=Boxes(boxes), gt_masks=BitMasks(masks))
        truth.gt_classes = torch.tensor([1, 3])
        image = torch.rand(3, height, 128, generator=torch.Generator().manual_seed(0)) * 255
        batch.append({"image": image, "instances": truth, "height": height, "width": 128})
    return batch


def detection(*overrides):
    """A step of the debug detector: ViT, pyramid, RPN, cascade and masks."""
    from detectron2.utils.events import EventStorage

    def loss(model, batch):
        with EventStorage():
            return sum(model(batch).values())

    return Step(detector(*overrides).train(), detection_batch(), loss, loop_copies=False)


# ---- segmentation ----------------------------------------------------------------------------
SEGMENTORS = {
    "mask2former": ("mask2former_eva_debug", {}),
    "mask2former, table, checkpoints": (
        "mask2former_eva_debug",
        {"rel_pos": "table", "layer_scale": 1.0, "activation_checkpointing": True},
    ),
    "upernet": ("upernet_eva_debug", {}),
    "upernet, windows": (
        "upernet_eva_debug",
        {"rel_pos": "beit", "window_size": 3, "global_attn_indexes": [1]},
    ),
}


def segmentor_config(kind):
    """Config of a debug segmentor with a tiny ViT."""
    importlib.import_module("eva_segmentation.plugin")  # before anything of mmdetection
    from mmengine.config import Config

    name, changes = SEGMENTORS[kind]
    cfg = Config.fromfile(ROOT / f"segmentation/configs/demo/{name}.py")
    small = {"img_size": 48, "embed_dim": 32, "num_heads": 2, "mlp_dim": 48}
    if name.startswith("mask2former"):
        adapter = {"depth": 4, "interaction_indexes": None, "conv_inplane": 8}
        cfg.model.backbone.update(small | adapter | {"deform_num_heads": 2} | changes)
        cfg.model.decode_head.update(in_channels=[32] * 4, checkpoint_ffn=len(changes) > 1)
    else:
        cfg.model.backbone.update(small | {"depth": 2} | changes)
    cfg.model.data_preprocessor.size = (SIDE, SIDE)
    cfg.model.test_cfg.update(crop_size=(SIDE, SIDE), stride=(SIDE // 2, SIDE // 2))
    cfg.test_dataloader.dataset.pipeline[1].scale = (4 * SIDE, SIDE)
    return cfg


def segmentor(kind):
    """The model of `segmentor_config`; batch norms are those of one process."""
    cfg = segmentor_config(kind)
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    torch.manual_seed(0)
    return revert_sync_batchnorm(MODELS.build(cfg.model))


def segmentation_batch(height=SIDE, width=SIDE):
    """Two images with label maps, as mmsegmentation's loader gives them."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randint, generator=generator)
    labels = draw(0, 5, (2, 1, height // 8, width // 8))
    labels = labels.repeat_interleave(8, 2).repeat_interleave(8, 3)
    shape = dict.fromkeys(("img_shape", "ori_shape", "pad_shape"), (height, width))
    samples = [SegDataSample(metainfo=shape, gt_sem_seg=PixelData(data=one)) for one in labels]
    inputs = draw(0, 256, (2, 3, height, width), dtype=torch.uint8)
    return {"inputs": list(inputs), "data_samples": samples}


def segmentation(kind):
    """A step of a debug segmentor."""

    def loss(model, batch):
        data = model.data_preprocessor(batch, True)
        return model.parse_losses(model(**data, mode="loss"))[0]

    return Step(segmentor(kind).train(), segmentation_batch(), loss, loop_copies=False)


def _kinds(title, make, kinds):
    return {f"{title}: {kind}": partial(make, kind) for kind in kinds}


STEPS = {  # of our own loop
    **_kinds("vit", vit, VITS),
    "pyramid": pyramid,
    **_kinds("pre-training", pretraining, ("masked_features", "distillation", "tokens")),
    **_kinds("classification", classification, ("plain", "mixed", "class token", "linear probe")),
    **_kinds("video", video, ("plain", "mixed", "checkpoints")),
    **_kinds("clip", contrastive,
             ("plain", "sigmoid", "patch dropout", "checkpoints", "half frozen")),
}  # fmt: skip
FRAMEWORK_STEPS = {
    **_kinds("detector", detection,
             ("model.backbone.net.rel_pos=vitdet", "model.backbone.net.rel_pos=beit")),
    **_kinds("segmentor", segmentation, ("mask2former, table, checkpoints", "upernet, windows")),
}  # fmt: skip
