"""Detectors that look at large images tile by tile, for mmengine's runner, tools and predictors."""

import dataclasses
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

from eva_data.detection.tiles import Slicing, Tile, detect_in_tiles, encode_mask, read_slicing
from eva_data.images import read_rgb
from eva_openmmlab.own_data import image_side
from eva_openmmlab.predictor import for_arrays


class _Slices:
    """Part of a detector that detects in tiles; masks of more than one are compressed RLEs."""

    slicing: Slicing
    prepare: Any

    def test_step(self, data: Any) -> list[Any]:
        """Detect in a batch, as mmengine's models do."""
        samples: list[Any] = []
        step = super().test_step  # type: ignore[misc]
        for image, sample in zip(data["inputs"], data["data_samples"], strict=True):
            tiles = self.slicing.tiles(*sample.ori_shape)
            if len(tiles) == 1:
                samples += step({"inputs": [image], "data_samples": [sample]})
                continue
            sample.pred_instances = self._detect(step, sample, tiles)
            samples.append(sample)
        return samples

    val_step = test_step

    def _detect(self, step: Any, sample: Any, tiles: list[Tile]) -> InstanceData:
        pixels = read_rgb(sample.img_path, upright=True)

        def run(some: Sequence[Tile]) -> list[InstanceData]:
            views = [pixels[y : y + high, x : x + wide, ::-1] for x, y, wide, high in some]
            arrays = [dict(img=np.ascontiguousarray(view), img_id=0, img_path="") for view in views]
            samples = step(pseudo_collate([self.prepare(view) for view in arrays]))
            results = [sample.pred_instances.cpu() for sample in samples]
            for result, tile in zip(results, some, strict=True):
                result.bboxes += result.bboxes.new_tensor(tile[:2] * 2)
                if "masks" in result:  # as codes, which take little memory
                    result.masks = [(tile, encode_mask(mask)) for mask in result.masks.numpy()]
            return results

        fields = attrgetter("bboxes", "scores", "labels")
        device, join = next(self.parameters()).device, InstanceData.cat  # type: ignore[attr-defined]
        merged = detect_in_tiles(run, tiles, device=device, join=join, fields=fields)
        if "masks" in merged:
            merged.masks = [_placed(tile, code, sample.ori_shape) for tile, code in merged.masks]
        return merged


def _placed(tile: Tile, code: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Encode the mask of a tile as one of its image."""
    (x, y, width, height), whole = tile, np.zeros(size, np.uint8, order="F")
    whole[y : y + height, x : x + width] = mask_api.decode(code)
    return encode_mask(whole)


@MODELS.register_module()
def SlicedDetector(  # noqa: N802 (a type in configs)
    *, detector: str, slicing: Mapping[str, Any], pipeline: Sequence[Any], **settings: Any
) -> Any:
    """Build a registered detector that detects in tiles, see `Slicing`; weights are the same.

    `pipeline` has the transforms of a test image, which a tile goes through.
    """
    kind: Any = MODELS.get(detector)
    model: Any = type(f"Sliced{kind.__name__}", (_Slices, kind), {})(**settings)
    model.slicing, model.prepare = Slicing(**slicing), for_arrays(pipeline)
    return model


def slice_images(cfg: Config, size: int | str | None, overlap: float) -> None:
    """Let a config detect large images in tiles; None for as it says."""
    if size is not None:
        patch, model = cfg.model.backbone.get("patch_size", 1), cfg.model
        if (model.get("test_cfg") or {}).get("panoptic_on"):
            raise ValueError(f"--slice {size}: panoptic segments are not merged over tiles")
        slicing = read_slicing(size, overlap, training=image_side(cfg), patch=patch)
        model.update(detector=model.get("detector") or model.type, type="SlicedDetector")
        model.slicing = dataclasses.asdict(slicing)
        model.pipeline = cfg.test_dataloader.dataset.pipeline
