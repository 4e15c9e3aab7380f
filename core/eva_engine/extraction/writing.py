"""The work of the command that writes features: a plan, the files, a report."""

import argparse
import sys
from pathlib import Path

import torch

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.verification import sha256_of
from eva_engine import distributed
from eva_engine.extraction.command import Extraction
from eva_engine.extraction.extracting import agree, extract
from eva_engine.extraction.shards import Plan
from eva_engine.precision import DTYPES
from eva_runs.commands import say

LARGEST_FILE = 4096  # samples


def write_features(options: argparse.Namespace, extraction: Extraction) -> None:
    """Write the features that a command line asks for, and report on the files.

    Args:
        options: Options of `eva_engine.extraction.command`.
        extraction: Features of the chosen kind.

    Raises:
        ValueError: If the folder holds features of something else.
    """
    samples, shape = extraction.samples, extraction.shape
    stored = DTYPES[options.store]
    bytes_each = stored.itemsize * torch.Size(shape).numel()
    # distinguishes weights of equal names
    digest = sha256_of(resolve_source(options.weights)) if distributed.rank() == 0 else ""
    settings = {
        "weights": Path(options.weights).name,
        "sha256": distributed.gather(digest)[0],
        **extraction.settings,
        "kind": options.kind,
        "store": options.store,
        "format": options.format,
        "shape": shape,
        samples.unit: len(samples),
        # so few that several processes have their share, and that little is lost with a file
        "shard_size": max(1, min(LARGEST_FILE, int(options.file_mb * 2**20 / bytes_each))),
        "names": samples.digest,
    }
    if distributed.rank() == 0:
        agree(options.output, settings)
    distributed.barrier()
    plan = Plan(
        folder=options.output,
        samples=len(samples),
        shard_size=settings["shard_size"],
        suffix=options.format,
    )
    left_out = extract(
        extraction.compute,
        samples,
        plan,
        shape=shape,
        stored=stored,
        batch_size=options.batch_size,
        workers=options.workers,
        skip_unreadable=options.skip_unreadable,
    )
    left_out = [why for part in distributed.gather(left_out) for why in part]
    if distributed.rank() == 0:
        for why in left_out:
            sys.stderr.write(f"left out: {why}\n")
        say(
            f"{options.output} holds {options.kind} features {tuple(shape)} of "
            f"{plan.count_written()} {samples.unit} in {plan.shards} files"
        )
