"""The paper's claim in miniature: what a small ViT gains from predicting the features of another.

    python benchmarks/miniature/run.py --output output/miniature

docs/miniature.md is the protocol. Two jobs run at once, each on one core; a finished one adds a
line to OUTPUT/results.jsonl, and the same command goes on where it was stopped. The page shows
benchmarks/results/miniature.jsonl, a copy of such a file, by `table.py`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from real_data import TEACHER, prepare
from safetensors.torch import save_file
from table import ARMS, SEEDS, tables
from torch import Tensor

from eva_backbone import build_vit
from eva_classification.features import FeatureExtractor
from eva_data.images import read_image
from eva_data.progress import progress
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine.evaluation.frozen import fit_best_linear, nearest_neighbours
from eva_pretrain.teachers import TimmTeacher
from eva_runs.options import command_parser

STUDENT, SIDE = "eva_debug_small", 56
PRETRAINED = ARMS[1:]  # all but "scratch"
LABELS = {1: 20, 10: 4, 100: 1}  # percent of the labels -> epochs
NEIGHBOURS = 20
# learning rates, of which validation data choose one for each arm
TRIED = {
    "pretraining": ("1e-3", "3e-3"),
    "fashion": ("5e-4", "1.5e-3", "4e-3"),
    "boxes": ("1e-3", "2e-3"),
    "maps": ("1e-3", "3e-3"),
}
VIT = ["embed_dim=64", "depth=4", "num_heads=2", "mlp_dim=256"]  # of `STUDENT`
_RUN = "run.workers=0 run.tensorboard=False run.keep_checkpoints=1 --run.resume"
Scores = dict[str, float]


class Miniature:
    """All jobs below a folder, and the results of those that are finished."""

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = folder.resolve(), results
        lines = results.read_text().splitlines() if results.exists() else []
        self.known: dict[tuple[str, int, str], Any] = {}
        for line in map(json.loads, lines):
            self.known[line["arm"], line["seed"], line["job"]] = line
        self.children: defaultdict[int, float] = defaultdict(float)  # their core-seconds, by thread
        describe = ["git", "describe", "--always", "--dirty"]
        self.commit = subprocess.check_output(describe, text=True).strip()

    def at(self, *parts: object) -> Path:
        """Return a path below the folder."""
        return self.folder.joinpath(*map(str, parts))

    def eva(self, *words: object) -> None:
        """Run a command of `eva` on one core."""
        arguments = [sys.executable, "-m", "eva_command", *map(str, words)]
        with self.at("log.txt").open("ab") as log:
            process = subprocess.Popen(arguments, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        self.children[threading.get_ident()] += usage.ru_utime + usage.ru_stime
        if status:
            raise SystemExit(f"see {self.at('log.txt')}: eva {' '.join(arguments[3:])}")

    def job(self, arm: str, seed: int, job: str, measure: Callable[[], Scores]) -> Scores:
        """Return the scores of a job, which is done if they are not known."""
        key = (arm, seed, job)
        if key not in self.known:
            began = self._core_seconds()
            # a detector that finds nothing has no score
            scores = {name: round(value or 0.0, 2) for name, value in measure().items()}
            line = {"arm": arm, "seed": seed, "job": job, "scores": scores}
            used = round(self._core_seconds() - began)
            line |= {"core_seconds": used, "commit": self.commit}
            with self.results.open("a") as file:  # a line at once
                file.write(json.dumps(line) + "\n")
            self.known[key] = line
        return dict(self.known[key]["scores"])

    def _core_seconds(self) -> float:
        return time.thread_time() + self.children[threading.get_ident()]

    def best(self, arm: str, kind: str) -> str:
        """Choose the learning rate with the best score on validation data."""
        scores = {lr: self.known[arm, 0, f"{kind} {lr}"]["scores"]["val"] for lr in TRIED[kind]}
        return max(scores, key=lambda lr: float(scores[lr]))

    # ---- pre-training ----
    def weights(self, arm: str, seed: int, lr: str = "") -> Path:
        """Return the weights of an arm, by default with the best learning rate."""
        if arm == "scratch":
            return self.at(f"scratch_{seed}.safetensors")
        return self.at("pretrain", f"{arm}_{seed}_{lr or self.best(arm, 'pretraining')}")

    def pretrain(self, arm: str, seed: int, lr: str = "") -> None:
        """Pre-train an arm; the weights of `scratch` are random."""
        run = self.weights(arm, seed, lr)
        if arm == "scratch":
            torch.manual_seed(seed)
            save_file(build_vit(STUDENT, img_size=SIDE).state_dict(), run)
            return
        network = "random" if arm == "control" else "imagenet"
        teacher = self._teacher(network)
        cache = f"teacher.cache={self.at('features', network)} teacher.views=2".split()
        if arm == "pixels":
            teacher, cache = f"teacher.library=pixels teacher.image_size={SIDE}".split(), []
        if arm == "tokens":
            teacher += ["objective=masked_tokens", f"tokenizer={self.at('tokenizer')}"]
        lr = lr or self.best(arm, "pretraining")
        epochs = 1 if cache else 2  # an epoch of the cache is both views of each image
        sizes = f"student.variant={STUDENT} student.image_size={SIDE} mask.num_masked=20"
        more = f"mask.min_block=4 run.epochs={epochs} optimizer.warmup_epochs={epochs / 10}"
        more += f" run.seed={seed} run.output={run} data.val="
        recipe = ["pretrain", "train", "eva_debug_digit_scenes", *sizes.split(), *more.split()]
        self.eva(*recipe, *teacher, *cache, *self._pool(lr))

    def tokenizer(self) -> Scores:
        """Train the tokenizer of the teacher's features."""
        more = f"num_codes=256 run.output={self.at('tokenizer')}".split()
        recipe = ["pretrain", "train-tokenizer", "tokenizer_debug", *more]
        self.eva(*recipe, *self._teacher("imagenet"), *self._pool("2e-3"))
        return {}

    def _teacher(self, network: str) -> list[str]:
        weights = self.at("data/teachers", f"{network}.safetensors")
        overrides = f"teacher.library=timm teacher.model={TEACHER} teacher.weights={weights}"
        return f"{overrides} teacher.image_size=112 teacher.stride=16".split()

    def _pool(self, lr: str) -> list[str]:
        overrides = f"data.train={self.at('data/pool')} data.crop_scale=[0.5,1] optimizer.lr={lr}"
        return f"{overrides} run.batch_size=64 {_RUN}".split()

    # ---- transfers ----
    def frozen(self, weights: Path | None, seed: int, *, validate: bool = False) -> Scores:
        """Score k-NN and linear classifiers on frozen features; the teacher's without weights.

        To validate, k-NN with a tenth of the labels alone, on images that are not of the test.
        """
        encode, fashion, scores = self._encoder(weights), self.at("data/fashion"), {}
        if validate:
            labelled, queries = (encode(fashion / name) for name in ("labels_10_0", "val"))
            return {"val": _right(_neighbours(labelled, queries), queries)}
        every, queries = encode(fashion / "train"), encode(fashion / "test")
        for percent in LABELS:
            labelled = every
            if percent < 100:
                drawn = {file.name for file in (fashion / f"labels_{percent}_{seed}").glob("*/*")}
                is_drawn = torch.tensor([name in drawn for name in every.names])
                labelled = Features(every.values[is_drawn], every.labels[is_drawn], sorted(drawn))
            scores[f"fashion {percent} k-NN"] = _right(_neighbours(labelled, queries), queries)
            scores[f"fashion {percent} linear"] = _right(_linear(labelled, queries), queries)
        labelled, queries = (encode(self.at("data/stamps", part)) for part in ("train", "test"))
        scores["stamps k-NN"] = _right(_neighbours(labelled, queries), queries)
        return scores | {"stamps linear": _right(_linear(labelled, queries), queries)}

    def fashion(self, weights: Path, seed: int, run: Path, *, percent: int, lr: str) -> Scores:
        """Fine-tune on some of the labels, and score on the test; a trial on validation data."""
        data = self.at("data/fashion")
        part = "val" if run.parent.name == "trials" else "test"
        train = data / ("train" if percent == 100 else f"labels_{percent}_{seed}")
        overrides = f"data.train={train} data.val={data / part} model.init_checkpoint={weights}"
        overrides += f" model.variant={STUDENT} model.image_size={SIDE} model.drop_path_rate=0"
        overrides += f" optimizer.layer_decay=1 optimizer.lr={lr} augment.flip=0.5 run.ema_decay=0"
        epochs = LABELS[percent]
        overrides += f" run.epochs={epochs} run.evaluate_every={epochs}"
        overrides += f" optimizer.warmup_epochs={epochs / 10}"
        overrides += f" run.seed={seed} run.output={run} run.batch_size=64 {_RUN}"
        self.eva("classification", "train", "eva_debug_digits", *overrides.split())
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        top1 = float([line["val_top1"] for line in lines if "val_top1" in line][-1])
        return {part: top1}

    def boxes(self, weights: Path, seed: int, run: Path, *, lr: str) -> Scores:
        """Train our detector on garments, and score it on others, on unseen photographs."""
        data, part = self.at("data/scenes/coco"), "val" if run.parent.name == "trials" else "test"
        overrides = ""
        for name, of in (("train", "train"), ("val", part)):
            overrides += f" --{name}-annotations {data}/annotations/instances_{of}.json"
            overrides += f" --{name}-images {data / of}"
        overrides += " model.proposal_generator.anchor_generator.sizes=[[32],[52],[76]]"
        scores = self._detect(weights, seed, run, lr, *overrides.split())
        if part == "val":
            return {"val": scores["bbox"]["AP"]}
        return {"box AP": scores["bbox"]["AP"], "mask AP": scores["segm"]["AP"]}

    def trees(self, weights: Path, seed: int, run: Path, *, lr: str) -> Scores:
        """Train our detector on tiles of an aerial photograph, and score it on three others."""
        arguments = f"--data {self.at('data/trees')} --tile 128 --slice 128"
        arguments += " dataloader.evaluator.max_dets_per_image=1000"
        scores = self._detect(weights, seed, run, lr, *arguments.split())
        return {name: scores["bbox"][name] for name in ("AP50", "AP")}

    def _detect(self, weights: Path, seed: int, run: Path, lr: str, *data: str) -> Any:
        arguments = (
            f"train.init_checkpoint={weights} train.seed={seed} train.output_dir={run} --resume"
        )
        arguments += f" optimizer.lr={lr} train.max_iter=200 dataloader.train.num_workers=0"
        arguments += " dataloader.train.total_batch_size=4"
        vit = [f"model.backbone.net.{setting}" for setting in (*VIT, "global_attn_indexes=[1,3]")]
        vit += ["optimizer.params.lr_factor_func=null", "model.backbone.net.drop_path_rate=0"]
        recipe = "demo/cascade_mask_rcnn_vitdet_eva_debug"
        self.eva("detection", "train", recipe, *data, *arguments.split(), *vit)
        return json.loads((run / "results.json").read_text())

    def maps(self, weights: Path, seed: int, run: Path, *, lr: str) -> Scores:
        """Train our segmentor on a frozen ViT, and score it on other garments and photographs."""
        data, part = self.at("data/scenes/maps"), "val" if run.parent.name == "trials" else "test"
        arguments = f"--classes {data}/classes.toml --load-from {weights} --work-dir {run} --resume"
        for name, of in (("train", "train"), ("val", part)):
            arguments += (
                f" --{name}-images {data}/images/{of} --{name}-maps {data}/annotations/{of}"
            )
        arguments += f" optim_wrapper.optimizer.lr={lr} randomness.seed={seed}"
        arguments += " train_cfg.max_iters=300 train_cfg.val_interval=300"
        arguments += " train_dataloader.batch_size=8 train_dataloader.num_workers=0"
        arguments += " train_dataloader.persistent_workers=False"
        arguments += (
            " optim_wrapper.paramwise_cfg.layer_decay=1.0 model.backbone.drop_path_rate=0.0"
        )
        arguments += " model.backbone.freeze_blocks=4"
        vit = [f"model.backbone.{setting}" for setting in VIT]
        self.eva("segmentation", "train", "upernet_eva_debug", *arguments.split(), *vit)
        scores = json.loads((run / "results.json").read_text())["sem_seg"]
        return {"val" if part == "val" else "mIoU": scores["mIoU"]}

    def _encoder(self, weights: Path | None) -> Callable[[Path], "Features"]:
        """Make the function that computes features of class folders; the teacher's for None."""
        if weights is None:
            file = str(self.at("data/teachers/imagenet.safetensors"))
            teacher = TimmTeacher(TEACHER, weights=file, image_size=112, stride=16)
            read = evaluation_transform(112, mean=teacher.mean, std=teacher.std)
            return partial(_encode, lambda images: teacher(images).mean(1), read)
        extractor = FeatureExtractor.from_weights(
            str(weights), image_size=SIDE, pooling="mean", precision="fp32"
        )
        read = evaluation_transform(SIDE, mean=extractor.mean, std=extractor.std)
        return partial(_encode, extractor, read)


class Features(NamedTuple):
    """Frozen features (N, C) of the images of class folders, their labels (N,) and names."""

    values: Tensor
    labels: Tensor
    names: list[str]


@torch.no_grad()
def _encode(network: Callable[[Tensor], Tensor], read: ImageTransform, folder: Path) -> Features:
    files = sorted(folder.glob("*/*"), key=lambda file: file.name)
    classes = sorted({file.parent.name for file in files})
    labels = torch.tensor([classes.index(file.parent.name) for file in files])
    parts = [
        network(
            torch.stack([read(read_image(file, upright=False)) for file in files[at : at + 64]])
        )
        for at in range(0, len(files), 64)
    ]
    return Features(torch.cat(parts), labels, [file.name for file in files])


def _neighbours(labelled: Features, queries: Features) -> Tensor:
    classes = int(labelled.labels.max()) + 1
    return nearest_neighbours(
        labelled.values, labelled.labels, queries.values, k=NEIGHBOURS, classes=classes
    )


def _linear(labelled: Features, queries: Features) -> Tensor:
    classes = int(labelled.labels.max()) + 1
    return fit_best_linear(labelled.values, labelled.labels, classes=classes)(queries.values)


def _right(logits: Tensor, queries: Features) -> float:
    return 100 * float((logits.argmax(1) == queries.labels).float().mean())


def run(mini: Miniature) -> None:
    """Run all jobs that are not finished."""
    prepare(mini.at("data"), SEEDS)

    def trial(arm: str, lr: str) -> Scores:
        mini.pretrain(arm, 0, lr)
        return mini.frozen(mini.weights(arm, 0, lr), 0, validate=True)

    first, second = TRIED["pretraining"]
    tried = [(arm, lr) for lr in (first, second) for arm in ("features", "control", *PRETRAINED)]
    trials = [
        (mini.job, settings[0], 0, f"pretraining {settings[1]}", partial(trial, *settings))
        for settings in tried
    ]
    teacher = (mini.job, "teacher", 0, "frozen", partial(mini.frozen, None, 0))
    tokenizer = (mini.job, "tokens", 0, "tokenizer", mini.tokenizer)
    # the first two trials compute the features of their teachers for the others
    _at_once([teacher, tokenizer, *trials])

    def pretrain(arm: str, seed: int) -> Scores:
        mini.pretrain(arm, seed)
        return {}

    # "tokens" and "features" open the same cache, so they do not begin at the same time
    pairs = [(arm, seed) for seed in SEEDS for arm in sorted(ARMS, key="tokens".__ne__)]
    _at_once((mini.job, *pair, "pretraining", partial(pretrain, *pair)) for pair in pairs)

    kinds: dict[str, Callable[..., Scores]] = {
        "fashion": partial(mini.fashion, percent=10),
        "boxes": mini.boxes,
        "maps": mini.maps,
    }
    rates = [(arm, kind, lr) for kind in kinds for lr in TRIED[kind] for arm in ARMS]

    def choose(arm: str, kind: str, lr: str) -> Scores:
        folder = mini.at("trials", f"{arm}_{kind}_{lr}")
        return kinds[kind](mini.weights(arm, 0), 0, folder, lr=lr)

    _at_once(
        (mini.job, settings[0], 0, f"{settings[1]} {settings[2]}", partial(choose, *settings))
        for settings in rates
    )
    transfers: dict[str, tuple[str, Callable[..., Scores]]] = {
        **{f"fashion {n}": ("fashion", partial(mini.fashion, percent=n)) for n in LABELS},
        "scenes boxes": ("boxes", mini.boxes),
        "scenes maps": ("maps", mini.maps),
        "trees": ("boxes", mini.trees),
    }

    def transfer(arm: str, seed: int, name: str) -> Scores:
        if name == "frozen":
            return mini.frozen(mini.weights(arm, seed), seed)
        kind, measure = transfers[name]
        folder = mini.at("transfers", f"{arm}_{seed}_{name.replace(' ', '_')}")
        return measure(mini.weights(arm, seed), seed, folder, lr=mini.best(arm, kind))

    each = [(arm, seed, name) for seed in SEEDS for name in ("frozen", *transfers) for arm in ARMS]
    _at_once((mini.job, *settings, partial(transfer, *settings)) for settings in each)


def _at_once(calls: Iterable[tuple[Any, ...]]) -> None:
    """Make calls, two at once, and show how many are over."""
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(*call) for call in calls]
        try:
            for job in progress(running, total=len(running), title="jobs"):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    parser = command_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/miniature"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "results.jsonl"
    run(Miniature(options.output, results))
    sys.stdout.write(tables(results.read_text().splitlines()))
