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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from real_data import TEACHER, prepare
from safetensors.torch import save_file
from table import ARMS, SEEDS, tables
from torch import Tensor
from torch.utils.data import DataLoader

from eva_backbone import build_vit
from eva_classification.features import FeatureExtractor
from eva_data.labelled_images import ClassFolders
from eva_data.progress import progress
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine.evaluation.frozen import fit_best_linear, nearest_neighbours
from eva_pretrain.teachers import TimmTeacher
from eva_runs.options import command_parser

STUDENT, SIDE, NEIGHBOURS = "eva_debug_small", 56, 20
# the first two make the caches; "tokens" and "features" open one, and never begin at the same time
PRETRAINED = ("features", "control", "tokens", "pixels")
# learning rates, of which validation data choose one for each arm
TRIED = {
    "pretraining": ("1e-3", "3e-3"),
    "fashion": ("5e-4", "1.5e-3", "4e-3"),
    "boxes": ("1e-3", "2e-3"),
    "maps": ("1e-3", "3e-3"),
}
EPOCHS = {"1": 20, "10": 4, "100": 1}  # by percent of the labels
# trials and transfers -> command; and scores by command -> where its results have them
TRANSFERS = {
    **{f"fashion {percent}": "fashion" for percent in EPOCHS},
    "scenes boxes": "boxes",
    "scenes maps": "maps",
    "trees": "trees",
}
SCORES = {
    "fashion": {"test": ("val", "top1")},
    "boxes": {"box AP": ("bbox", "AP"), "mask AP": ("segm", "AP")},
    "maps": {"mIoU": ("sem_seg", "mIoU")},
    "trees": {"AP50": ("bbox", "AP50"), "AP": ("bbox", "AP")},
}

_ENGINE = """run.batch_size=64 run.workers=0 run.tensorboard=False run.keep_checkpoints=1
    run.seed={seed} run.output={run} optimizer.lr={lr} --run.resume"""
_POOL = "data.train={data}/pool data.crop_scale=[0.5,1]"
_TEACHER = f"""teacher.library=timm teacher.model={TEACHER} teacher.image_size=112 teacher.stride=16
    teacher.weights={{data}}/teachers/{{network}}.safetensors"""
# an epoch of the cache is both views of each image
_CACHED = f"""{_TEACHER} teacher.cache={{output}}/features/{{network}} teacher.views=2
    run.epochs=1 optimizer.warmup_epochs=0.1"""
_PIXELS = f"""teacher.library=pixels teacher.image_size={SIDE}
    run.epochs=2 optimizer.warmup_epochs=0.2"""
_PRETRAIN = f"""pretrain train eva_debug_digit_scenes {_ENGINE} {_POOL} data.val=
    student.variant={STUDENT} student.image_size={SIDE} mask.num_masked=20 mask.min_block=4"""
_DETECT = """detection train demo/cascade_mask_rcnn_vitdet_eva_debug --resume
    train.init_checkpoint={weights} train.seed={seed} train.output_dir={run} optimizer.lr={lr}
    train.max_iter=200 dataloader.train.num_workers=0 dataloader.train.total_batch_size=4
    optimizer.params.lr_factor_func=null model.backbone.net.drop_path_rate=0
    model.backbone.net.embed_dim=64 model.backbone.net.depth=4 model.backbone.net.num_heads=2
    model.backbone.net.mlp_dim=256 model.backbone.net.global_attn_indexes=[1,3]"""
COMMANDS = {  # the arguments of `eva`
    "tokenizer": f"pretrain train-tokenizer tokenizer_debug {_ENGINE} {_POOL} {_TEACHER} "
    "num_codes=256",
    "pixels": f"{_PRETRAIN} {_PIXELS}",
    "tokens": f"{_PRETRAIN} {_CACHED} objective=masked_tokens tokenizer={{output}}/tokenizer",
    "features": f"{_PRETRAIN} {_CACHED}",
    "control": f"{_PRETRAIN} {_CACHED}",
    "fashion": f"""classification train eva_debug_digits {_ENGINE} run.ema_decay=0
        data.train={{data}}/fashion/{{labels}} data.val={{data}}/fashion/{{part}} augment.flip=0.5
        model.init_checkpoint={{weights}} model.variant={STUDENT} model.image_size={SIDE}
        model.drop_path_rate=0 optimizer.layer_decay=1 optimizer.warmup_epochs={{warmup}}
        run.epochs={{epochs}} run.evaluate_every={{epochs}}""",
    "boxes": f"""{_DETECT} model.proposal_generator.anchor_generator.sizes=[[32],[52],[76]]
        --train-annotations {{data}}/scenes/coco/annotations/instances_train.json
        --train-images {{data}}/scenes/coco/train --val-images {{data}}/scenes/coco/{{part}}
        --val-annotations {{data}}/scenes/coco/annotations/instances_{{part}}.json""",
    "trees": f"""{_DETECT} --data {{data}}/trees --tile 128 --slice 128
        dataloader.evaluator.max_dets_per_image=1000""",
    "maps": """segmentation train upernet_eva_debug --work-dir {run} --load-from {weights} --resume
        --train-images {data}/scenes/maps/images/train
        --train-maps {data}/scenes/maps/annotations/train
        --val-images {data}/scenes/maps/images/{part}
        --val-maps {data}/scenes/maps/annotations/{part} randomness.seed={seed}
        optim_wrapper.optimizer.lr={lr} optim_wrapper.paramwise_cfg.layer_decay=1.0
        train_cfg.max_iters=300 train_cfg.val_interval=300 train_dataloader.batch_size=8
        train_dataloader.num_workers=0 train_dataloader.persistent_workers=False
        model.backbone.freeze_blocks=4 model.backbone.drop_path_rate=0.0
        model.backbone.embed_dim=64 model.backbone.depth=4 model.backbone.num_heads=2
        model.backbone.mlp_dim=256""",
}
Scores = dict[str, float]
Job = tuple[str, int, str, Callable[[], Scores]]  # arm, seed, title, and what measures
Labelled = tuple[Tensor, Tensor]  # features (N, C), labels (N,)


class Miniature:
    """All jobs below a folder, and the results of those that are finished."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder.resolve(), folder / "results.jsonl"
        self.data = self.folder / "data"
        self.results.touch()
        self.finished: dict[tuple[str, int, str], Scores] = {}
        for line in map(json.loads, self.results.read_text().splitlines()):
            self.finished[line["arm"], line["seed"], line["job"]] = line["scores"]
        describe = ["git", "describe", "--always", "--dirty"]
        self.commit = subprocess.check_output(describe, text=True).strip()

    def run(self) -> None:
        """Run all jobs that are not finished."""
        prepare(self.data, SEEDS)
        tokenizer = partial(self.pretrain, "tokenizer", 0, self.folder / "tokenizer", "2e-3")
        jobs: list[Job] = [("tokens", 0, "tokenizer", tokenizer)]
        jobs += [("teacher", 0, "frozen", self.score_teacher)]
        for lr, arm in product(TRIED["pretraining"], PRETRAINED):
            jobs.append((arm, 0, f"pretraining {lr}", partial(self.try_pretraining, arm, lr)))
        self.finish(jobs)

        weights, jobs = {}, []
        for seed, arm in product(SEEDS, (*PRETRAINED, "scratch")):
            lr = self.best(arm, "pretraining") if arm in PRETRAINED else ""
            weights[arm, seed] = file = self.weights(arm, seed, lr)
            jobs.append((arm, seed, "pretraining", partial(self.pretrain, arm, seed, file, lr)))
        self.finish(jobs)

        jobs = []
        for name in ("fashion 10", "scenes boxes", "scenes maps"):
            kind = TRANSFERS[name]
            for lr, arm in product(TRIED[kind], ARMS):
                trial = partial(self.transfer, weights[arm, 0], arm, 0, name, lr, is_trial=True)
                jobs.append((arm, 0, f"{kind} {lr}", trial))
        self.finish(jobs)

        jobs = []
        for (arm, seed), file in weights.items():
            jobs.append((arm, seed, "frozen", partial(self.score_frozen, file, seed)))
            for name, command in TRANSFERS.items():
                lr = self.best(arm, "boxes" if command == "trees" else command)
                jobs.append((arm, seed, name, partial(self.transfer, file, arm, seed, name, lr)))
        self.finish(jobs)

    def finish(self, jobs: list[Job]) -> None:
        """Do jobs, two at once, and show how many are over."""
        with ThreadPoolExecutor(2) as pool:
            for _ in progress(pool.map(self._finish, jobs), total=len(jobs), title="jobs"):
                pass

    def _finish(self, job: Job) -> None:
        """Do a job and add its line to the results, unless it is there."""
        arm, seed, title, measure = job
        if (arm, seed, title) not in self.finished:
            # a detector that finds nothing has no score
            scores = {name: round(score or 0.0, 2) for name, score in measure().items()}
            line = {"arm": arm, "seed": seed, "job": title, "scores": scores, "commit": self.commit}
            with self.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self.finished[arm, seed, title] = scores

    def best(self, arm: str, kind: str) -> str:
        """Choose the learning rate with the best score on validation data."""
        return max(TRIED[kind], key=lambda lr: self.finished[arm, 0, f"{kind} {lr}"]["val"])

    def weights(self, arm: str, seed: int, lr: str) -> Path:
        """Return where the weights of an arm are: a run, or for "scratch" a file."""
        if arm == "scratch":
            return self.folder / f"scratch_{seed}.safetensors"
        return self.folder / "pretrain" / f"{arm}_{seed}_{lr}"

    def eva(self, command: str, **settings: Any) -> None:
        """Run a command of `eva` on one core."""
        settings |= {"output": self.folder, "data": self.data}
        words = [word.format(**settings) for word in COMMANDS[command].split()]
        with (self.folder / "log.txt").open("ab") as log:
            program = [sys.executable, "-m", "eva_command", *words]
            if subprocess.run(program, stdout=log, stderr=log, check=False).returncode:
                raise SystemExit(f"see {self.folder / 'log.txt'}: eva {' '.join(words)}")

    # ---- pre-training ----
    def pretrain(self, arm: str, seed: int, run: Path, lr: str) -> Scores:
        """Pre-train an arm; the weights of "scratch" are random."""
        if arm == "scratch":
            torch.manual_seed(seed)
            save_file(build_vit(STUDENT, img_size=SIDE).state_dict(), run)
        else:
            network = "random" if arm == "control" else "imagenet"
            self.eva(arm, seed=seed, run=run, lr=lr, network=network)
        return {}

    def try_pretraining(self, arm: str, lr: str) -> Scores:
        """Score k-NN with a tenth of the labels, on images that are not of the test."""
        run = self.weights(arm, 0, lr)
        self.pretrain(arm, 0, run, lr)
        encode = frozen_encoder(run)
        labelled, queries = (encode(self.data / "fashion" / p) for p in ("labels_10_0", "val"))
        return {"val": classify(labelled, queries)[0]}

    # ---- transfers ----
    def transfer(
        self, weights: Path, arm: str, seed: int, name: str, lr: str, *, is_trial: bool = False
    ) -> Scores:
        """Train on a transfer, and score the last weights on the test; a trial on validation."""
        command, percent = TRANSFERS[name], name.rpartition(" ")[2]
        stem = f"{arm}_{seed}_{name.replace(' ', '_')}_{lr}"
        run = self.folder / ("trials" if is_trial else "transfers") / stem
        settings: dict[str, Any] = {"seed": seed, "run": run, "weights": weights, "lr": lr}
        settings["part"] = "val" if is_trial else "test"
        if command == "fashion":
            labels = "train" if percent == "100" else f"labels_{percent}_{seed}"
            epochs = EPOCHS[percent]
            settings |= {"labels": labels, "epochs": epochs, "warmup": epochs / 10}
        self.eva(command, **settings)
        if command == "fashion":
            lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            results = {"val": {"top1": [e["val_top1"] for e in lines if "val_top1" in e][-1]}}
        else:
            results = json.loads((run / "results.json").read_text())
        scores = {title: results[task][key] for title, (task, key) in SCORES[command].items()}
        return {"val": next(iter(scores.values()))} if is_trial else scores

    def score_teacher(self) -> Scores:
        """Score the teacher's own features."""
        weights = str(self.data / "teachers/imagenet.safetensors")
        teacher = TimmTeacher(TEACHER, weights=weights, image_size=112, stride=16)
        transform = evaluation_transform(112, mean=teacher.mean, std=teacher.std)
        return self._score(partial(encode, lambda images: teacher(images).mean(1), transform), 0)

    def score_frozen(self, weights: Path, seed: int) -> Scores:
        """Score k-NN and linear classifiers on frozen features."""
        return self._score(frozen_encoder(weights), seed)

    def _score(self, encode: Callable[[Path], Labelled], seed: int) -> Scores:
        scores, queries = Scores(), encode(self.data / "fashion/test")
        for percent in EPOCHS:
            labels = "train" if percent == "100" else f"labels_{percent}_{seed}"
            right = classify(encode(self.data / "fashion" / labels), queries)
            scores |= {f"fashion {percent} k-NN": right[0], f"fashion {percent} linear": right[1]}
        right = classify(encode(self.data / "stamps/train"), encode(self.data / "stamps/test"))
        return scores | {"stamps k-NN": right[0], "stamps linear": right[1]}


# ---- frozen features -----------------------------------------------------------------------------
def frozen_encoder(weights: Path) -> Callable[[Path], Labelled]:
    """Make the function that computes features of class folders."""
    extractor = FeatureExtractor.from_weights(
        str(weights), image_size=SIDE, pooling="mean", precision="fp32"
    )
    return partial(encode, extractor, extractor.transform)


@torch.no_grad()
def encode(
    network: Callable[[Tensor], Tensor], transform: ImageTransform, folder: Path
) -> Labelled:
    """Compute the features of the images of class folders."""
    samples = ClassFolders(folder, transform, upright=False)
    parts = [(network(images), labels) for images, labels in DataLoader(samples, 64)]
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)


def classify(labelled: Labelled, queries: Labelled) -> tuple[float, float]:
    """Compute the top-1 in percent of nearest neighbours and of a linear classifier."""
    classes = int(labelled[1].max()) + 1
    votes = nearest_neighbours(*labelled, queries[0], k=NEIGHBOURS, classes=classes)
    logits = fit_best_linear(*labelled, classes=classes)(queries[0])
    right = [(scores.argmax(1) == queries[1]).float().mean() for scores in (votes, logits)]
    return 100 * float(right[0]), 100 * float(right[1])


if __name__ == "__main__":
    parser = command_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/miniature"))
    output = parser.parse_args().output
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    output.mkdir(parents=True, exist_ok=True)
    miniature = Miniature(output)
    miniature.run()
    sys.stdout.write(tables(miniature.results.read_text().splitlines()))
