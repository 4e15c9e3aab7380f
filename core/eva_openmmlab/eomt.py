"""EoMT in mmengine: its backbone, its heads, and the hook that anneals its masks away.

The losses are Mask2Former's, by mmdetection. See `eva_backbone.eomt`.

Shapes: B images, Q queries, K classes, h x w the resolution of masks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModule
from mmengine.registry import HOOKS, MODELS, TASK_UTILS
from torch import Tensor, nn

from eva_backbone import VisionTransformer
from eva_backbone.eomt import EoMT, annealed
from eva_openmmlab.backbone import StartWeights, check_sides
from eva_openmmlab.data_parallel import unwrap

QUERIES = r"backbone\.(query$|mask_mlp\.|upscale\.|mask_probability$)"  # not in a file of a ViT


@MODELS.register_module()
class EoMTBackbone(EoMT, StartWeights):
    """A plain ViT with queries in its last blocks, for `EoMTHead` and `EoMTSemanticHead`.

    Args:
        num_queries: Number of queries.
        query_blocks: Blocks that queries join, from the last.
        pretrained: Weights to start from: a file, or the name of an official or bundled one.
        init_cfg: mmengine's way to say so: `dict(type="Pretrained", checkpoint=...)`.
        freeze_patch_embed: Keep the patch embedding as it is loaded.
        freeze_blocks: First blocks of the ViT to keep as they are loaded, with all embeddings.
        **vit: Arguments of the ViT; `patch_size` 16 unless given.
    """

    def __init__(
        self,
        *,
        num_queries: int,
        query_blocks: int = 4,
        pretrained: str | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        freeze_patch_embed: bool = False,
        freeze_blocks: int = 0,
        **vit: Any,
    ) -> None:
        net = VisionTransformer(**{"patch_size": 16} | vit)
        super().__init__(net, num_queries=num_queries, query_blocks=query_blocks)
        freeze: Any = dict(freeze_patch_embed=freeze_patch_embed, freeze_blocks=freeze_blocks)
        self.start_from(pretrained, init_cfg, net=net, **freeze)

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Predict masks; see `EoMT.forward`."""
        check_sides(images, self.net.patch_size)
        return super().forward(images)


class StableLosses:
    """Part of a Mask2Former head: float32, and a matcher that survives a run that diverges."""

    def loss_by_feat(
        self,
        all_cls_scores: list[Tensor],
        all_mask_preds: list[Tensor],
        batch_gt_instances: list[Any],
        batch_img_metas: list[dict[str, Any]],
    ) -> dict[str, Tensor]:
        """Compute all losses in float32, also under automatic mixed precision; as mmdetection."""
        with torch.autocast(all_cls_scores[0].device.type, enabled=False):
            losses: dict[str, Tensor] = super().loss_by_feat(  # type: ignore[misc]
                [scores.float() for scores in all_cls_scores],
                [masks.float() for masks in all_mask_preds],
                batch_gt_instances,
                batch_img_metas,
            )
        return losses

    def _get_targets_single(
        self, cls_score: Tensor, mask_pred: Tensor, *args: Any
    ) -> tuple[Tensor, ...]:
        # of a run that diverged: its losses say so, where the matcher's error would end one process
        scores, masks = (tensor.nan_to_num(0.0, 1e4, -1e4) for tensor in (cls_score, mask_pred))
        targets: tuple[Tensor, ...] = super()._get_targets_single(  # type: ignore[misc]
            scores, masks, *args
        )
        return targets


class QueryHead(StableLosses):
    """Classes of the queries of `EoMTBackbone`, with Mask2Former's matching and losses.

    Part of a Mask2Former head of mmdetection, whose decoders it does without.

    Args:
        in_channels: Width of the ViT.
        num_things_classes: Classes of things; with those of stuff K.
        num_stuff_classes: Classes of stuff; 0 for instances alone.
        loss_weights: Weights of class, mask and dice, in the losses and in the matching.
        no_object_weight: Weight of "no object" in the loss of classes.
        num_points: Points at which the losses of a mask are taken.
        train_cfg: Not read; mmdetection hands it over.
        test_cfg: Not read either.
        init_cfg: mmengine's initialisation.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_things_classes: int,
        num_stuff_classes: int = 0,
        loss_weights: Sequence[float] = (2.0, 5.0, 5.0),
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        train_cfg: Any = None,
        test_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        BaseModule.__init__(self, init_cfg)  # no decoders
        self.num_things_classes, self.num_stuff_classes = num_things_classes, num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.cls_embed = nn.Linear(in_channels, self.num_classes + 1)
        self.num_points, self.oversample_ratio, self.importance_sample_ratio = num_points, 3.0, 0.75
        self.class_weight = [1.0] * self.num_classes + [no_object_weight]
        of_class, of_mask, of_dice = loss_weights
        dice = dict(eps=1.0)
        self.loss_cls, self.loss_mask, self.loss_dice = map(
            MODELS.build,
            (
                dict(
                    type="mmdet.CrossEntropyLoss",
                    loss_weight=of_class,
                    class_weight=self.class_weight,
                ),
                dict(type="mmdet.CrossEntropyLoss", loss_weight=of_mask, use_sigmoid=True),
                dict(type="mmdet.DiceLoss", loss_weight=of_dice, naive_dice=True, **dice),
            ),
        )
        costs = [
            dict(type="mmdet.ClassificationCost", weight=of_class),
            dict(type="mmdet.CrossEntropyLossCost", weight=of_mask, use_sigmoid=True),
            dict(type="mmdet.DiceCost", weight=of_dice, pred_act=True, **dice),
        ]
        self.assigner = TASK_UTILS.build(dict(type="mmdet.HungarianAssigner", match_costs=costs))
        self.sampler = TASK_UTILS.build(dict(type="mmdet.MaskPseudoSampler"))

    def init_weights(self) -> None:
        """Leave the classifier as it is built."""

    def forward(self, x: Any, batch_data_samples: Any = None) -> tuple[list[Tensor], list[Tensor]]:
        """Compute (B, Q, K + 1) classes and (B, Q, h, w) masks of each prediction."""
        self.num_queries = x[0][0].shape[1]  # of the backbone, which the targets are as many as
        return [self.cls_embed(queries) for queries, _ in x], [masks for _, masks in x]


@HOOKS.register_module()
class AnnealMasks(Hook):
    """Anneals the masks of `EoMTBackbone` away, one block after another, as a function of progress.

    Args:
        starts: Share of the run until which each block has all masks; None for equal parts.
        ends: Share from which it has none.
        power: Of the polynomial between them.
    """

    def __init__(
        self,
        starts: Sequence[float] | None = None,
        ends: Sequence[float] | None = None,
        power: float = 0.9,
    ) -> None:
        self.starts, self.ends, self.power = starts, ends, power

    def before_train(self, runner: Any) -> None:
        """Set the probabilities of the first iteration, also of a run that continues."""
        self._set(runner, runner.iter)

    def after_train_iter(self, runner: Any, batch_idx: int, *_: Any, **__: Any) -> None:
        """Set those of the next iteration, and of an evaluation before it."""
        self._set(runner, batch_idx + 1)

    def _set(self, runner: Any, iteration: int) -> None:
        model = unwrap(runner.model)
        backbone: EoMT = model.backbone
        count, progress = backbone.query_blocks, iteration / runner.max_iters
        starts = self.starts or [(block + 1) / (count + 2) for block in range(count)]
        ends = self.ends or [(block + 2) / (count + 2) for block in range(count)]
        values = [
            annealed(progress, start, end, self.power)
            for start, end in zip(starts, ends, strict=True)
        ]
        backbone.mask_probability.copy_(torch.tensor(values))
