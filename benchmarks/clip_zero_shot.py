"""A zero-shot evaluation beside open_clip's way, with the same model sizes, weights and images.

open_clip and CLIP_benchmark make the features of the classes in each evaluation, ten classes in a
forward pass, and then count in a loop over batches. Ours keeps the features of the classes on the
disk, and counts as `clip/evaluate_zero_shot.py` does. Images are JPEG files of 500 x 375 pixels,
read by the same number of workers.

Yields `(name, value)` of the images alone and of the complete evaluation, in which texts weigh the
more the fewer images there are. First both must predict the same.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/clip_zero_shot.py
    python benchmarks/clip_zero_shot.py --size complete --images 2048 --batch 256 --workers 8  # GPU

Letters: B images, K classes, D values of a feature.
"""

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from clip_models import build_ours, build_peer, image_size, parser_of_towers, peer_weights
from measuring import Figure, beside, show
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_contrastive.evaluation.zero_shot import ZeroShotClassifier, class_features
from eva_contrastive.model.eva_clip import EvaClip
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.evaluation.counting import OneLabel, count
from eva_runs.precision import DTYPES

SEED, TOLERANCE, CLASSES = 0, 1e-3, 20
TEMPLATES = [f"a {kind} photo of a {{}}." for kind in ("good", "bad", "large", "small", "dark")]


def our_count(model: EvaClip, samples: Any, args: argparse.Namespace, texts: Tensor) -> list[int]:
    """Count correct predictions, first and first five, by features of the classes (K, D)."""
    score = count(
        ZeroShotClassifier(model, texts), samples, {"": OneLabel()},
        device=texts.device, batch_size=args.batch, workers=args.workers,
    ).scores[""]  # fmt: skip
    return [score.right1, score.right5]


@torch.inference_mode()
def peer_count(model: Any, samples: Any, args: argparse.Namespace, texts: Tensor) -> list[int]:
    """The same as open_clip's training program does it, by features (D, K)."""
    loader: Any = DataLoader(samples, args.batch, num_workers=args.workers)
    total = torch.zeros(2)
    for images, labels in loader:
        features = model(image=images.to(texts.device, texts.dtype))["image_features"]
        found = (100.0 * features @ texts).topk(5).indices
        right = found == labels.to(texts.device)[:, None]
        total += torch.stack([right[:, :1].sum(), right.sum()]).cpu()
    return [int(value) for value in total]


def write_images(folder: Path, number: int) -> None:
    """Write coarse noise as images of K classes."""
    random = np.random.default_rng(SEED)
    for index in range(number):
        coarse = random.integers(0, 256, (25, 33, 3), dtype=np.uint8)
        place = folder / f"class {index % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(place / f"{index:06}.jpg", quality=90)


def figures(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    distributed.seed_all(SEED)
    ours, peer = build_ours(args.size), build_peer(args.size)
    head: Any = ours.visual.head
    torch.nn.init.normal_(head.weight)  # else one class is the best everywhere
    peer.load_state_dict(peer_weights(ours.state_dict()))
    for model in (ours, peer):
        model.eval().to(device, DTYPES[args.precision])
    side = image_size(args.size)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images)
        our_transform = evaluation_transform(side, mean=CLIP_MEAN, std=CLIP_STD)
        samples = open_labelled(folder, our_transform, upright=False)
        transform = open_clip.image_transform(side, is_train=False, mean=CLIP_MEAN, std=CLIP_STD)
        peer_samples = ImageFolder(folder, transform)
        our_texts = partial(class_features, ours, samples.classes, TEMPLATES)
        peer_texts = partial(
            open_clip.build_zero_shot_classifier, peer, open_clip.SimpleTokenizer(),
            peer_samples.classes, TEMPLATES, device=device,
        )  # fmt: skip
        texts = our_texts(), peer_texts()
        our_images = partial(our_count, ours, samples, args)
        peer_images = partial(peer_count, peer, peer_samples, args)
        apart = float((texts[0] - texts[1].T).abs().max())
        yield "largest difference of the features of classes", apart
        results = our_images(texts[0]), peer_images(texts[1])
        yield "difference of the numbers of correct predictions", results[0][0] - results[1][0]
        if device.type == "cpu" and (apart > TOLERANCE or results[0] != results[1]):
            raise ValueError(f"the two evaluations do not find the same: {apart}, {results}")
        for part, mine, theirs in (
            ("images", partial(our_images, texts[0]), partial(peer_images, texts[1])),
            ("texts", our_texts, peer_texts),
            ("complete", lambda: our_images(our_texts()), lambda: peer_images(peer_texts())),
        ):
            calls = {"ours": mine, "open_clip": theirs}
            items = 0 if part == "texts" else args.images
            yield from beside(
                part, calls, items=items, rounds=args.rounds, device=device, memory=False
            )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = parser_of_towers(__doc__, batch=16)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    device = distributed.start("auto")
    show(figures(args, device), rounds=args.rounds)
    distributed.stop()


if __name__ == "__main__":
    main()
