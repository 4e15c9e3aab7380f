"""Build the teacher of a recipe."""

import torch

from eva_engine.distributed import DTYPES
from eva_pretrain.config import TeacherConfig
from eva_pretrain.teachers.clip import ClipTeacher
from eva_pretrain.teachers.teacher import BackboneTeacher, Teacher


def build_teacher(config: TeacherConfig, device: torch.device) -> Teacher:
    """Build the frozen teacher on a device.

    Args:
        config: Library, model and weights.
        device: Device of the teacher.

    Returns:
        The teacher; its images have `config.image_size`.

    Raises:
        ValueError: For an unknown model, unfit weights, or fp16 without a GPU.
        FileNotFoundError: If weights are not there.
    """
    if config.precision == "fp16" and device.type == "cpu":
        raise ValueError("teacher.precision=fp16 needs a GPU; on a CPU use fp32")
    if config.library == "eva":
        plain = BackboneTeacher(config.model, weights=config.weights, image_size=config.image_size)
        return plain.to(device, DTYPES[config.precision])
    return ClipTeacher.from_open_clip(
        config.model,
        config.weights or None,
        image_size=config.image_size,
        precision=config.precision,
        device=device,
    )
