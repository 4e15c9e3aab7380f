"""Compute features and write them: several processes share the files, and a run continues.

Shapes: B samples, C channels, h x w patches.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_data.files import write_text
from eva_data.pictures import UnreadableImageError
from eva_data.progress import ProgressBar
from eva_engine import distributed
from eva_engine.data.loading import evaluation_loader
from eva_engine.extraction.samples import Samples
from eva_engine.extraction.shards import SETTINGS, Plan, write_shard


def agree(folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings, or check that they are the same as before, to continue.

    Args:
        folder: Folder of the files.
        settings: Settings by name.

    Raises:
        ValueError: If the folder holds features with other settings.
    """
    file = folder / SETTINGS
    if file.is_file():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"{file} cannot be read ({error}): remove it, or choose another --output"
            ) from error
        settings = json.loads(json.dumps(settings))  # tuples are lists there
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise ValueError(
                f"{folder} holds features with other settings ("
                + ", ".join(f"{key} {before.get(key, '?')} -> {settings[key]}" for key in changed)
                + "; ? was not noted by an earlier version" * (not set(changed) <= before.keys())
                + "); choose another --output"
            )
        return
    write_text(file, json.dumps(settings, indent=2) + "\n")


def extract(
    compute: Callable[[Tensor], Tensor],
    samples: Samples,
    plan: Plan,
    *,
    shape: Sequence[int],
    stored: torch.dtype,
    batch_size: int,
    workers: int,
    skip_unreadable: bool = False,
) -> list[str]:
    """Compute the files that are not there yet; each process takes its share of them.

    Args:
        compute: What gives features (B, C) or (B, C, h, w) of a batch of samples.
        samples: The samples.
        plan: How they are spread over files.
        shape: Shape of the features of one sample.
        stored: Number format in the files.
        batch_size: Samples in a forward pass.
        workers: Processes that load.
        skip_unreadable: Leave unreadable pictures out.

    Returns:
        A reason for each picture of this process that was left out.

    Raises:
        UnreadableImageError: If a picture cannot be read, unless such pictures are skipped.
        FloatingPointError: If features are not finite in the number format.
    """
    missing = [shard for shard in range(plan.shards) if not plan.file(shard).is_file()]
    missing = distributed.gather(missing)[0]  # as the first process sees it
    own = missing[distributed.rank() :: distributed.world_size()]
    steps = [
        (shard, batch) for shard in own for batch in _batches(plan.samples_of(shard), batch_size)
    ]
    if not steps:
        return []
    left_out: list[str] = []
    names: list[str] = []
    parts: list[Tensor] = []
    total = sum(len(batch) for _, batch in steps)
    with (
        contextlib.nullcontext()
        if distributed.rank()
        else ProgressBar(total, what="features", unit=samples.unit.removesuffix("s")) as bar,
        evaluation_loader(
            samples, batches=[batch for _, batch in steps], workers=workers, collate=_collate
        ) as batches,
    ):
        for (shard, batch), (indexes, tensors, bad) in zip(steps, batches, strict=True):
            if bad and not skip_unreadable:
                raise UnreadableImageError(f"{bad[0]}; --skip-unreadable leaves such pictures out")
            left_out += bad
            if indexes:
                features = compute(tensors).to(stored)
                found = [samples.names[index] for index in indexes]
                finite = features.flatten(1).isfinite().all(1).cpu()
                if not finite.all():
                    raise FloatingPointError(
                        f"features of {found[int((~finite).nonzero()[0])]} are not finite in "
                        f"{stored}: use --precision fp32 and --store fp32"
                    )
                names += found
                parts.append(features.cpu())
            if bar is not None:
                bar.update(len(batch))
            if batch[-1] == plan.samples_of(shard)[-1]:
                features = torch.cat(parts) if parts else torch.empty(0, *shape, dtype=stored)
                write_shard(plan.file(shard), names, features)
                names, parts = [], []
    return left_out


def _collate(
    loaded: list[tuple[int, Tensor | None, str]],
) -> tuple[list[int], Tensor | None, list[str]]:
    """Stack what was read: indexes, tensors (B, ...), and the reasons for what was not."""
    good = [(index, tensor) for index, tensor, _ in loaded if tensor is not None]
    tensors = torch.stack([tensor for _, tensor in good]) if good else None
    return [index for index, _ in good], tensors, [why for _, one, why in loaded if one is None]


def _batches(indexes: range, size: int) -> Iterator[list[int]]:
    for start in range(0, len(indexes), size):
        yield list(indexes[start : start + size])
