"""mmdetection's cascade head and RPN with the rules of the official detector, detectron2's.

mmdetection averages the logits of its stages, has a mask head at each and draws regions again for
each; detectron2 averages probabilities, has one mask head and takes each stage's boxes to the next.
The RPN has detectron2's order of proposals, in float32 when training.

Letters: R regions of an image, K classes, n detections or proposals, A anchors at a position,
H x W positions of a level.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.utils import empty_instances, unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi, scale_boxes
from mmengine.structures import InstanceData
from torch import Tensor

from eva_backbone.layers import LAYER_NORM_EPS, ChannelLayerNorm
from eva_backbone.resample import no_autocast


@MODELS.register_module()
class EVACascadeRoIHead(CascadeRoIHead):
    """`CascadeRoIHead` that detects and learns as detectron2's `CascadeROIHeads`.

    Differs in that the scores of an image's regions are the mean of the stages' probabilities;
    that one mask head serves the final boxes and learns from the first stage's regions; that
    stages after the first learn from all boxes of the stage before (their sampler must be
    `PseudoSampler`); and that heads are float32 in training. Box heads must be class-agnostic in
    their boxes (`reg_class_agnostic=True`).

    `test_cfg` takes `maskness_thr` besides mmdetection's keys: scores are multiplied by the mean
    mask probability above it (paper section 2.3.3: 0.5 in the published results with masks).

    Args:
        **settings: Arguments of mmdetection's `CascadeRoIHead`; `mask_head` is one or None.
    """

    # of one mask head
    init_mask_head = StandardRoIHead.init_mask_head
    _mask_forward = StandardRoIHead._mask_forward

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if not all(head.reg_class_agnostic for head in self.bbox_head):
            raise ValueError("reg_class_agnostic of every bbox_head must be True in this cascade")
        if (self.test_cfg or {}).get("maskness_thr") is not None and not self.with_mask:
            raise ValueError("maskness_thr needs a mask head, and this detector has none")

    def _bbox_forward(self, stage: int, x: Sequence[Tensor], rois: Tensor) -> dict[str, Tensor]:
        extractor = self.bbox_roi_extractor[stage]
        features = extractor(x[: extractor.num_inputs], rois)
        if self.training and features.requires_grad:
            # all stages together pull on the backbone as much as one does
            features.register_hook(lambda gradient: gradient / self.num_stages)
        scores, deltas = self.bbox_head[stage](features)
        return dict(cls_score=scores, bbox_pred=deltas, bbox_feats=features)

    def loss(
        self,
        x: Sequence[Tensor],
        rpn_results_list: list[InstanceData],
        batch_data_samples: list[Any],
    ) -> dict[str, Tensor]:
        """Compute the losses of all stages and of the masks (`s0.loss_cls` ...) in float32."""
        with no_autocast(x[0].device):
            levels = tuple(level.float() for level in x)
            return self._losses(levels, rpn_results_list, batch_data_samples)

    def _losses(
        self, x: Sequence[Tensor], proposals: list[InstanceData], samples: list[Any]
    ) -> dict[str, Tensor]:
        truth, ignored, metas = unpack_gt_instances(samples)
        losses: dict[str, Tensor] = {}
        for result in proposals:
            result.priors = result.pop("bboxes")
        for stage in range(self.num_stages):
            self.current_stage = stage
            sampled = []
            for image, result in enumerate(proposals):
                assigned = self.bbox_assigner[stage].assign(result, truth[image], ignored[image])
                sampled.append(self.bbox_sampler[stage].sample(assigned, result, truth[image]))
            results = self.bbox_loss(stage, x, sampled)
            for name, value in results["loss_bbox"].items():
                weight = self.stage_loss_weights[stage] if "loss" in name else 1.0
                losses[f"s{stage}.{name}"] = value * weight
            if stage == 0 and self.with_mask:
                losses |= self.mask_loss(stage, x, sampled, truth)["loss_mask"]
            proposals = self._next_proposals(stage, sampled, results["bbox_pred"], metas)
        return losses

    def mask_loss(
        self,
        stage: int,
        x: Sequence[Tensor],
        sampling_results: list[Any],
        batch_gt_instances: list[InstanceData],
    ) -> dict[str, Any]:
        """Compute the loss of the mask head on the regions of objects; see `CascadeRoIHead`."""
        rois = bbox2roi([result.pos_priors for result in sampling_results])
        results = self._mask_forward(x, rois)
        losses = self.mask_head.loss_and_target(
            mask_preds=results["mask_preds"],
            sampling_results=sampling_results,
            batch_gt_instances=batch_gt_instances,
            rcnn_train_cfg=self.train_cfg[stage],
        )
        return results | losses

    @torch.no_grad()
    def _next_proposals(
        self, stage: int, sampled: list[Any], deltas: Tensor, metas: list[dict[str, Any]]
    ) -> list[InstanceData]:
        """Move a stage's regions by its deltas; empty boxes are left out."""
        priors = [result.priors for result in sampled]
        parts = deltas.split([len(boxes) for boxes in priors])
        return [
            _without_empty(InstanceData(priors=self._decode(stage, *boxes)), "priors")
            for boxes in zip(priors, parts, metas, strict=True)
        ]

    def predict_bbox(
        self,
        x: Sequence[Tensor],
        batch_img_metas: list[dict[str, Any]],
        rpn_results_list: list[InstanceData],
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Detect the boxes of each image as mmdetection; without `rcnn_test_cfg` all candidates."""
        rois = [result.bboxes for result in rpn_results_list]
        boxes, scores = self._cascade(x, rois, batch_img_metas)
        results = []
        for box, score, meta in zip(boxes, scores, batch_img_metas, strict=True):
            if rescale and len(box):
                box = scale_boxes(box, [1 / factor for factor in meta["scale_factor"]])
            if rcnn_test_cfg is None:
                results.append(InstanceData(bboxes=box, scores=score))
                continue
            cfg = rcnn_test_cfg
            detected, labels = multiclass_nms(box, score, cfg.score_thr, cfg.nms, cfg.max_per_img)
            result = InstanceData(bboxes=detected[:, :4], scores=detected[:, 4], labels=labels)
            results.append(_without_empty(result, "bboxes"))
        return results

    def _cascade(
        self, x: Sequence[Tensor], rois: list[Tensor], metas: list[dict[str, Any]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run all stages.

        Returns:
            For each image the last stage's boxes (R, 4), and probabilities (R, K + 1), averaged
            over the stages.
        """
        counts = [len(boxes) for boxes in rois]
        sums: Tensor | float = 0.0
        for stage, head in enumerate(self.bbox_head):
            outputs = self._bbox_forward(stage, x, bbox2roi(rois))
            logits, deltas = outputs["cls_score"], outputs["bbox_pred"].split(counts)
            custom = head.custom_activation
            sums = sums + (head.loss_cls.get_activation(logits) if custom else logits.softmax(-1))
            rois = [self._decode(stage, *boxes) for boxes in zip(rois, deltas, metas, strict=True)]
        return rois, list((sums / self.num_stages).split(counts))

    def _decode(self, stage: int, boxes: Tensor, deltas: Tensor, meta: dict[str, Any]) -> Tensor:
        coder = self.bbox_head[stage].bbox_coder
        moved: Tensor = coder.decode(boxes, deltas, max_shape=meta["img_shape"])
        return moved

    def predict_mask(
        self,
        x: Sequence[Tensor],
        batch_img_metas: list[dict[str, Any]],
        results_list: list[InstanceData],
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Add `masks` (n, H, W) to the detections; rescore by maskness where it is asked for."""
        rois = bbox2roi([result.bboxes for result in results_list])
        if not len(rois):
            return empty_instances(
                batch_img_metas,
                rois.device,
                task_type="mask",
                instance_results=results_list,
                mask_thr_binary=self.test_cfg.mask_thr_binary,
            )
        logits = self._mask_forward(x, rois)["mask_preds"]
        logits = logits.split([len(result) for result in results_list])
        threshold = self.test_cfg.get("maskness_thr")
        if threshold is not None:
            for result, masks in zip(results_list, logits, strict=True):
                own = 0 if self.mask_head.class_agnostic else result.labels
                masks = masks[torch.arange(len(result)), own].sigmoid()  # (n, h, w)
                result.scores = result.scores * mean_inside(masks, threshold)
        return self.mask_head.predict_by_feat(
            mask_preds=logits,
            results_list=results_list,
            batch_img_metas=batch_img_metas,
            rcnn_test_cfg=self.test_cfg,
            rescale=rescale,
        )

    def forward(
        self,
        x: Sequence[Tensor],
        rpn_results_list: list[InstanceData],
        batch_data_samples: list[Any],
    ) -> tuple[Any, ...]:
        """Run the heads without NMS, which mmdetection's counter of FLOPs does."""
        metas = [sample.metainfo for sample in batch_data_samples]
        boxes, scores = self._cascade(
            x, [proposals.bboxes for proposals in rpn_results_list], metas
        )
        if not self.with_mask:
            return scores, boxes
        return scores, boxes, self._mask_forward(x, bbox2roi(boxes))["mask_preds"]


def mean_inside(masks: Tensor, threshold: float) -> Tensor:
    """Compute the maskness (n,) of masks (n, h, w): mean probability above a threshold, or 0.

    See SOLO, arXiv 1912.04488.
    """
    inside = masks.where(masks > threshold, 0.0)
    return inside.sum((1, 2)) / (inside > 0).sum((1, 2)).clamp(min=1)


def _without_empty(result: InstanceData, name: str) -> InstanceData:
    size = result[name][:, 2:] - result[name][:, :2]
    return result[(size > 0).all(1)]


@MODELS.register_module()
class EVARPNHead(RPNHead):
    """`RPNHead` that ranks proposals by their logits.

    mmdetection ranks by probability, in which float32 cannot tell confident proposals apart: their
    order is then chance, and with it what NMS keeps.
    """

    def loss_and_predict(self, x: tuple[Tensor, ...], *args: Any, **kwargs: Any) -> Any:
        """Compute losses and proposals in float32, whatever the autocast around it."""
        with no_autocast(x[0].device):
            return super().loss_and_predict(tuple(level.float() for level in x), *args, **kwargs)

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor],
        mlvl_priors: list[Tensor],
        img_meta: dict[str, Any],
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceData:
        """Choose an image's proposals; arguments as mmdetection's, levels (A, H, W)."""
        del score_factor_list
        cfg = self.test_cfg if cfg is None else cfg
        best = []
        for level, (logits, deltas, anchors) in enumerate(
            zip(cls_score_list, bbox_pred_list, mlvl_priors, strict=True)
        ):
            logits = logits.permute(1, 2, 0).flatten()  # (H * W * A,)
            deltas = deltas.permute(1, 2, 0).reshape(-1, 4)
            count = cfg.get("nms_pre", -1)
            top, index = logits.topk(min(count, len(logits)) if count > 0 else len(logits))
            levels = torch.full_like(index, level)
            best.append((top, deltas[index], anchors[index], levels))
        scores, deltas, anchors, levels = (torch.cat(parts) for parts in zip(*best, strict=True))
        results = InstanceData()
        results.bboxes = self.bbox_coder.decode(anchors, deltas, max_shape=img_meta["img_shape"])
        results.scores = scores
        results.level_ids = levels
        results = self._bbox_post_process(
            results=results, cfg=cfg, rescale=rescale, with_nms=with_nms, img_meta=img_meta
        )
        results.scores = results.scores.sigmoid()
        return results


@MODELS.register_module()
class EVAChannelNorm(ChannelLayerNorm):
    """The pyramid's LayerNorm over channels, for mmcv's `norm_cfg`.

    `eps` must be 1e-6, as in every layer of the detector; mmcv's default differs.
    """

    _abbr_ = "ln"  # what mmcv calls it inside its `ConvModule`

    def __init__(self, num_channels: int, *, eps: float) -> None:
        if eps != LAYER_NORM_EPS:
            raise ValueError(f"eps of EVAChannelNorm must be {LAYER_NORM_EPS}, got {eps}")
        super().__init__(num_channels)
