"""Small models and one training step of each project, for tests of devices.

Not a test itself: the tests of a second device on a CPU and those on a GPU share it.
"""

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from eva_backbone import SimpleFeaturePyramid, VisionTransformer
from eva_runs.data_order import to_device

ROOT = Path(__file__).parents[1]
SIZES = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 48, "drop_path_rate": 0.4}
WINDOWS = {"extra_tokens": (), "window_size": 3, "global_attn_indexes": (1,), "final_norm": False}


class Step(NamedTuple):
    """A training step.

    Attributes:
        model: The model, on the CPU, in training mode.
        make_batch: Function that gives the same batch each time, as the project's loader does.
        loss: Function that computes the loss of model and batch.
        loop_copies: Whether the loop copies the batch to the device; else the model does.
    """

    model: nn.Module
    make_batch: Callable[[], Any]
    loss: Callable[[nn.Module, Any], torch.Tensor]
    loop_copies: bool

    def run(self, model, device):
        """Seed, forward pass; the loss of a model that lies on a device."""
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 (timm's mixup draws from it)
        batch = copy.deepcopy(self.make_batch())  # timm's mixup changes it in place
        return self.loss(model, to_device(batch, device) if self.loop_copies else batch)


def _generator():
    return torch.Generator().manual_seed(0)


def _images(count=6, side=64):
    return torch.randn(count, 3, side, side, generator=_generator())


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
    batch = _images(side=96)[..., :80]
    return Step(model, lambda: batch, lambda model, x: model(x).square().mean(), True)


def pyramid():
    """The simple feature pyramid behind a map of patches."""
    model = SimpleFeaturePyramid(in_channels=16, out_channels=8).train()
    batch = torch.randn(2, 16, 6, 4, generator=_generator())

    def loss(model, feature_map):
        return sum(level.square().mean() for level in model(feature_map))

    return Step(model, lambda: batch, loss, True)


# ---- pre-training and classification -----------------------------------------------------------
SMALL = SIZES | {"img_size": 64, "patch_size": 16}
DIM, CODES = 8, 12  # of the teacher's features, of the tokenizer


class Teacher(nn.Module):
    """Features that a convolution makes of the patches: (B, 3, 64, 64) -> (B, 16, DIM)."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, DIM, kernel_size=16, stride=16).requires_grad_(False)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


def _tokenizer():
    from eva_pretrain.tokens.tokenizer import Codebook, FeatureTokenizer

    codebook = Codebook(num_codes=CODES, code_dim=4)
    return FeatureTokenizer(feature_dim=DIM, codebook=codebook, width=16, num_heads=2)


class _Objective(nn.Module):
    """Student, teacher and objective as one module, so that all of them change the device."""

    def __init__(self, student, objective):
        super().__init__()
        self.student, self.teacher, self.objective = student, Teacher(), objective

    def forward(self, batch):
        from eva_pretrain.masked_image_modeling import PretrainStep

        return PretrainStep(self.teacher, self.objective)(self.student, batch)[0]


def pretraining(kind):
    """An objective on a batch as a run has it."""
    from eva_pretrain import masked_image_modeling as mim
    from eva_pretrain.tokens.tokenizer import MaskedTokens
    from eva_pretrain.training import alternating_mask

    masked, samples = kind != "distillation", [{"images": image} for image in _images()]
    if masked:
        samples = [s | {"mask": torch.as_tensor(alternating_mask((4, 4)))} for s in samples]
        samples[1]["mask"][0] = True  # images with different numbers of masked patches
    batch = mim.collate(samples)
    if kind == "tokens":
        tokenizer = _tokenizer()
        tokenizer(Teacher()(batch["images"]))  # its first codes
        objective = MaskedTokens(tokenizer.eval())
    else:
        objective = mim.MaskedFeatures()
    student = mim.masked_image_modeling(
        "eva_debug",
        target_dim=CODES if kind == "tokens" else DIM,
        extra_tokens=("cls", "mask") if masked else ("cls",),
        **SMALL,
    )
    model = _Objective(student, objective).train()
    return Step(model, lambda: batch, lambda model, batch: model(batch), True)


def tokenizer():
    """The tokenizer of features, with the moving average of its codes."""
    features = torch.randn(4, 16, DIM, generator=_generator())
    return Step(_tokenizer().train(), lambda: features, lambda model, x: model(x)[0], True)


def classification(kind):
    """Fine-tuning with and without mixup, and the linear probe."""
    from eva_classification.config import AugmentConfig
    from eva_classification.models import build_classifier, build_linear_probe
    from eva_engine.data.mixed_targets import ClassificationStep, MixedTargets

    mix = {"mixup": 0.8, "cutmix": 1.0} if kind == "mixed" else {}
    if kind == "linear probe":
        sizes = {name: value for name, value in SMALL.items() if name != "drop_path_rate"}
        model = build_linear_probe("eva_debug", num_classes=5, **sizes).train()
    else:
        pooling = "cls" if kind == "class token" else "mean"
        model = build_classifier("eva_debug", num_classes=5, pooling=pooling, **SMALL).train()
        nn.init.normal_(model.head.weight, std=0.1)  # with 0.001 the gradients would be rounding
    step = ClassificationStep(MixedTargets(AugmentConfig(**mix), num_classes=5))
    batch = [_images(), torch.tensor([0, 1, 2, 3, 4, 0])]
    return Step(model, lambda: batch, lambda model, batch: step(model, batch)[0], True)


def video(kind):
    """Fine-tuning on clips at another length than that of the positions."""
    from eva_engine.data.mixed_targets import ClassificationStep, MixedTargets
    from eva_video.config import AugmentConfig
    from eva_video.model.classifier import build_video_classifier

    mix = {"mixup": 0.8, "cutmix": 1.0, "pairing": "permute"} if kind == "mixed" else {}
    torch.manual_seed(0)
    checkpoints = {"activation_checkpointing": kind == "checkpoints"}
    model = build_video_classifier("eva_debug", num_classes=5, frames=4, **SMALL, **checkpoints)
    nn.init.normal_(model.head.weight, std=0.1)
    model.train()
    step = ClassificationStep(MixedTargets(AugmentConfig(**mix), num_classes=5))
    clips = _images(count=18).unflatten(0, (6, 3))
    batch = [clips, torch.tensor([0, 1, 2, 3, 4, 0])]
    return Step(model, lambda: batch, lambda model, batch: step(model, batch)[0], True)


def contrastive(kind):
    """Contrastive training of two towers."""
    from eva_contrastive.step import ContrastiveStep, build_loss
    from eva_engine.steps.micro_batches import MicroBatches
    from eva_runs.data_order import Batch

    loss_fn = build_loss("sigmoid" if kind == "sigmoid" else "contrastive")
    checkpoints = kind == "checkpoints"
    options = {"patch_dropout": 0.5} if kind == "patch dropout" else {}
    model = clip(sigmoid=kind == "sigmoid", activation_checkpointing=checkpoints, **options).train()
    if checkpoints:
        model.text.set_grad_checkpointing(True)
    if kind == "half frozen":
        model.visual.requires_grad_(False)
    images, texts = _images(), clip_tokens()

    def loss(model, pairs):
        step = ContrastiveStep(loss_fn)
        batches = iter([Batch(data=pairs, items=[], unreadable={})])
        micro_batches = MicroBatches(batches, count=1, device=pairs[0].device, seeds=(0, 0))
        step.begin(model, micro_batches)
        (batch,) = micro_batches
        return step(model, batch)[0]

    return Step(model, lambda: (images, texts), loss, True)


def clip(**options):
    """A tiny CLIP, with features that differ."""
    from eva_contrastive.model.eva_clip import build_eva_clip

    torch.manual_seed(0)
    sizes = {"depth": 2, "img_size": 64, "patch_size": 16, "drop_path_rate": 0.4} | options
    model = build_eva_clip("eva_debug", "debug", embed_dim=DIM, **sizes)
    for weight in (model.visual.head.weight, model.text.text_projection):
        nn.init.normal_(weight, std=0.1)
    return model


def clip_tokens(length=32):
    """Tokens of six texts."""
    from eva_contrastive.model.eva_clip import tokenize

    texts = ["a dog", "two cats", "a photo of the number seven", "red", "a b c", "a car at night"]
    return tokenize(texts, length)


def feature_extractor():
    """Features of the tiny classifier, on the CPU."""
    from eva_backbone.checkpoints.pooled import PooledVit
    from eva_classification.features import FeatureExtractor
    from eva_classification.models import build_classifier

    torch.manual_seed(0)
    model = build_classifier("eva_debug", num_classes=3, **SMALL)
    half = (0.5, 0.5, 0.5)
    pooled = PooledVit(model, pooling="mean", image_size=64)
    return FeatureExtractor(pooled, mean=half, std=half)


def picture(height=72, width=96):
    """Coarse noise, (height, width, 3) uint8."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


# ---- detection -------------------------------------------------------------------------------
DETECTOR = ROOT / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
NET = "model.backbone.net."
TINY_DETECTOR = (
    *(f"{NET}{name}" for name in ("depth=2", "embed_dim=32", "num_heads=2", "mlp_dim=64")),
    f"{NET}global_attn_indexes=[1]",
)


def detector(*overrides, seed=0):
    """The debug detector with a tiny ViT and random weights."""
    from detectron2.config import LazyConfig, instantiate

    cfg = LazyConfig.apply_overrides(LazyConfig.load(str(DETECTOR)), [*TINY_DETECTOR, *overrides])
    torch.manual_seed(seed)
    model = instantiate(cfg.model)
    for predictor in model.roi_heads.box_predictor:  # else all scores are alike
        nn.init.normal_(predictor.cls_score.weight, std=0.1)
    return model


def detection_predictor(device, *overrides, augmented=False):
    """A predictor of the debug detector, on a device."""
    from eva_detection.inference.predictor import Predictor
    from eva_detection.inference.test_time_augmentation import EVARCNNWithTTA

    model = detector(*overrides).to(device)
    if augmented:
        model = EVARCNNWithTTA(model, min_sizes=[96, 128], flip=True)
    return Predictor(model, augmentations=(), categories=(), score_threshold=0.05)


def _scene(height, width):
    from detectron2.structures import BitMasks, Boxes, Instances

    boxes = torch.tensor([[10.0, 10, 50, 50], [60, 30, 90, 80]])
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    found = Instances((height, width), gt_boxes=Boxes(boxes), gt_masks=BitMasks(masks))
    found.gt_classes = torch.tensor([1, 3])
    image = torch.rand(3, height, width, generator=_generator()) * 255
    return {"image": image, "instances": found, "height": height, "width": width}


def detection_batch():
    """Two pictures with two objects each, as detectron2's mapper gives them."""
    return [_scene(128, 128), _scene(100, 128)]


def detection(*overrides):
    """A step of the debug detector: ViT, pyramid, RPN, cascade and masks."""
    from detectron2.utils.events import EventStorage

    def loss(model, batch):
        with EventStorage():
            return sum(model(batch).values())

    return Step(detector(*overrides).train(), detection_batch, loss, False)


# ---- segmentation ----------------------------------------------------------------------------
SIDE = 64
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
    if cfg.tta_pipeline:
        views = cfg.tta_pipeline[1].transforms
        views[0] = [dict(type="Resize", scale=(4 * SIDE, SIDE), keep_ratio=True)]
        views[3] = [dict(type="PadShortSide", size=SIDE)]
    return cfg


def segmentation_predictor(device, *, multi_scale=False):
    """A predictor of the light segmentor, on a device, with one scale and its mirror."""
    cfg = segmentor_config("mask2former")
    from eva_segmentation.inference.predictor import Predictor
    from eva_segmentation.model.segmentor import StreamingTTA

    pipeline = cfg.tta_pipeline if multi_scale else cfg.test_dataloader.dataset.pipeline
    model = segmentor("upernet")
    nn.init.normal_(model.decode_head.conv_seg.weight)  # else one class is the best everywhere
    model = StreamingTTA(model) if multi_scale else model
    classes = {"names": ["class"] * 5, "colors": [(0, 0, 0)] * 5, "labels": range(5)}
    return Predictor(model.to(device), pipeline=pipeline, **classes)


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
    """Two pictures with label maps, as mmsegmentation's loader gives them."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator, samples = _generator(), []
    for _ in range(2):
        labels = torch.randint(0, 5, (1, height // 8, width // 8), generator=generator)
        labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
        shape = dict.fromkeys(("img_shape", "ori_shape", "pad_shape"), (height, width))
        samples.append(SegDataSample(metainfo=shape, gt_sem_seg=PixelData(data=labels)))
    inputs = torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)
    return {"inputs": list(inputs), "data_samples": samples}


def segmentation(kind):
    """A step of a debug segmentor."""

    def loss(model, batch):
        data = model.data_preprocessor(batch, True)
        return model.parse_losses(model(**data, mode="loss"))[0]

    return Step(segmentor(kind).train(), segmentation_batch, loss, False)
