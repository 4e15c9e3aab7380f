"""Inference in each precision beside fp32: features, speed and memory of a ViT; scores of runs.

    python benchmarks/precision.py --batch 4 --depth 8    # of EVA-g's width
    python benchmarks/precision.py --scores "segmentation evaluate output/mine --output OUT"

A command of `eva` runs in each precision, with a new folder for OUT.
"""

import copy
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench import measure
from measuring import EVA_MLP, EVA_WIDTH, Case, Figure, here, show, with_peak
from torch import Tensor

from eva_backbone import VisionTransformer
from eva_runs.options import command_parser
from eva_runs.precision import DTYPES, to_precision

KINDS: tuple[Any, ...] = (*DTYPES, "int8")
SCORE = re.compile(r'"([^"]*\b(?:AP|mAP|bbox_mAP|segm_mAP|mIoU|top1|\w+_r1))": ([\d.]+)')
SIDE = 224


def features(args: Any) -> Iterator[Figure]:
    """Compare features, weights and forward passes of a ViT of random weights."""
    device = here()
    sizes = {"embed_dim": args.width, "depth": args.depth, "num_heads": args.heads}
    vit = VisionTransformer(img_size=SIDE, patch_size=14, mlp_dim=EVA_MLP, **sizes)
    vit.init_weights()
    images, outputs = torch.randn(args.batch, 3, SIDE, SIDE, device=device), dict[str, Tensor]()

    @torch.inference_mode()
    def forward(kind: str, model: Any) -> None:
        outputs[kind] = model.forward_features(images.to(model.pos_embed))

    vit.eval().requires_grad_(False)
    models = {kind: to_precision(copy.deepcopy(vit), kind, device) for kind in KINDS}
    calls = {kind: partial(forward, kind, model) for kind, model in models.items()}
    for kind, way in measure(Case("forward", calls), device, args.rounds)["ways"].items():
        yield f"{kind}: images/s", args.batch / way["median"]
        yield f"{kind}: times as fast as fp32", 1 / way.get("ratios", [1.0])[0]
        if "cpu" in way:
            yield f"{kind}: the same by CPU time", 1 / way["cpu"]
        yield f"{kind}: peak, GiB", with_peak(calls[kind], device)[1]
        torch.save(models[kind].state_dict(), file := io.BytesIO())
        yield f"{kind}: weights, MiB", file.tell() / 2**20
        cosines = torch.cosine_similarity(outputs[kind].float(), outputs["fp32"].float(), dim=2)
        yield f"{kind}: largest 1 - cosine of a token with fp32", 1 - cosines.min().item()


def scores(command: str) -> Iterator[Figure]:
    """Run an evaluation in each precision: seconds, largest memory and scores."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            words = shlex.split(command.replace("OUT", f"{folder}/out"))
            program = [sys.executable, "-m", "eva_command", *words, "--precision", kind]
            began = time.perf_counter()
            child = subprocess.Popen(program, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(child.pid, 0)
            if status:
                raise SystemExit(f"{shlex.join(program)} has failed")
            yield f"{words[0]}, {kind}: seconds in all", time.perf_counter() - began
            yield f"{words[0]}, {kind}: largest memory, GiB", used.ru_maxrss / 2**20
            results = next(Path(folder).rglob("results.json")).read_text()
            for name, value in SCORE.findall(results):
                yield f"{words[0]}, {kind}: {name}", float(value)


if __name__ == "__main__":
    parser = command_parser(__doc__)
    sizes = {"width": EVA_WIDTH, "depth": 8, "heads": 16, "batch": 4, "rounds": 3}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--scores", nargs="+", metavar="COMMAND", help="evaluations, not features")
    args = parser.parse_args()
    evaluations = itertools.chain.from_iterable(map(scores, args.scores or ()))
    show(evaluations if args.scores else features(args), rounds=args.rounds)
