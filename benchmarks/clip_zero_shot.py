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
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from clip_models import SIZES, build_ours, build_peer, parser_of_towers, peer_weights
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
from eva_engine.distributed import DTYPES
from eva_engine.evaluation.counting import OneLabel, count

SEED, TOLERANCE, CLASSES = 0, 1e-3, 20


class Ours:
    """The toolkit's evaluation."""

    def __init__(self, model: EvaClip, folder: Path, args: argparse.Namespace) -> None:
        self.model, self.args = model, args
        transform = evaluation_transform(
            SIZES[args.size]["image_size"], mean=CLIP_MEAN, std=CLIP_STD
        )
        self.samples = open_labelled(folder / "images", transform, upright=False)

    def texts(self) -> Tensor:
        """The features of the classes, (K, D)."""
        return class_features(self.model, self.samples.classes, TEMPLATES)

    def images(self, texts: Tensor) -> tuple[int, int]:
        """Count correct predictions, first and first five."""
        score = count(
            ZeroShotClassifier(self.model, texts), self.samples, {"": OneLabel()},
            device=texts.device, batch_size=self.args.batch, workers=self.args.workers,
        ).scores[""]  # fmt: skip
        return score.right1, score.right5


class Peer:
    """The evaluation of open_clip's training program."""

    def __init__(self, model: Any, folder: Path, args: argparse.Namespace) -> None:
        self.model, self.args = model, args
        transform = open_clip.image_transform(
            SIZES[args.size]["image_size"], is_train=False, mean=CLIP_MEAN, std=CLIP_STD
        )
        self.samples = ImageFolder(str(folder / "images"), transform)
        self.tokenizer = open_clip.SimpleTokenizer()
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def texts(self) -> Tensor:
        """The features of the classes, (D, K)."""
        features: Tensor = open_clip.build_zero_shot_classifier(
            self.model, self.tokenizer, self.samples.classes, TEMPLATES, device=self.device
        )
        return features

    @torch.inference_mode()
    def images(self, texts: Tensor) -> tuple[int, int]:
        """Count correct predictions, first and first five."""
        loader: Any = DataLoader(self.samples, self.args.batch, num_workers=self.args.workers)
        first = five = 0.0
        for images, labels in loader:
            features = self.model(image=images.to(self.device, self.dtype))["image_features"]
            found = (100.0 * features @ texts).topk(5).indices
            right = found == labels.to(self.device)[:, None]
            first += float(right[:, :1].sum().cpu())
            five += float(right.sum().cpu())
        return int(first), int(five)


TEMPLATES = [f"a {kind} photo of a {{}}." for kind in ("good", "bad", "large", "small", "dark")]


def write_images(folder: Path, args: argparse.Namespace) -> None:
    """Write coarse noise as images of K classes."""
    random = np.random.default_rng(SEED)
    for number in range(args.images):
        coarse = random.integers(0, 256, (25, 33, 3), dtype=np.uint8)
        place = folder / f"class {number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(place / f"{number:06}.jpg", quality=90)


def figures(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    """Yield all figures."""
    distributed.seed_all(SEED)
    models = build_ours(args.size), build_peer(args.size)
    head: Any = models[0].visual.head
    torch.nn.init.normal_(head.weight)  # else one class is the best everywhere
    models[1].load_state_dict(peer_weights(models[0].state_dict()))
    for model in models:
        model.eval().to(device, DTYPES[args.precision])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", args)
        ours, peer = Ours(models[0], folder, args), Peer(models[1], folder, args)
        texts = ours.texts(), peer.texts()
        apart = float((texts[0] - texts[1].T).abs().max())
        yield "largest difference of the features of classes", apart
        results = ours.images(texts[0]), peer.images(texts[1])
        yield "difference of the numbers of correct predictions", results[0][0] - results[1][0]
        if device.type == "cpu" and (apart > TOLERANCE or results[0] != results[1]):
            raise ValueError(f"the two evaluations do not find the same: {apart}, {results}")
        for part, mine, theirs in (
            ("images", lambda: ours.images(texts[0]), lambda: peer.images(texts[1])),
            ("texts", ours.texts, peer.texts),
            ("complete", lambda: ours.images(ours.texts()), lambda: peer.images(peer.texts())),
        ):
            calls = {"ours": mine, "open_clip": theirs}
            items = 0 if part == "texts" else args.images
            options = {"rounds": args.rounds, "device": device, "memory": False}
            yield from beside(part, calls, items=items, **options)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of_towers(__doc__, batch=16)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    return parser.parse_args(arguments)


def main() -> None:
    """Print all figures."""
    args = parse()
    device = distributed.start("auto")
    show(figures(args, device), rounds=args.rounds)
    distributed.stop()


if __name__ == "__main__":
    main()
