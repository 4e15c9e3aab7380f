"""A classifier that begins as a student of `eva distill`, beside one with random weights.

python benchmarks/distillation.py --seeds 0 1 2

Teacher `eva_debug`, student `eva_debug_small`, demo digits; equal steps on labels. A second call
with the same output goes on where the first was stopped.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from eva_runs.options import command_parser

DISTILL = """--teacher eva_debug --student eva_debug_small --image-size 48 optimizer.lr=3e-3
    data.crop_scale=[0.8,1] run.batch_size=32"""
CLASSIFY = """classification train eva_debug_digits model.variant=eva_debug_small run.ema_decay=0
    model.drop_path_rate=0 optimizer.layer_decay=1"""


def eva(words: str) -> None:
    """Run a command of `eva`."""
    subprocess.run([sys.executable, "-m", "eva_command", *words.split()], check=True)


def top1(run: Path) -> float:
    """Read the last evaluation of a run."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return float([line["val_top1"] for line in lines if "val_top1" in line][-1])


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/distillation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--distill-epochs", type=int, default=3, help="of two views of each image")
    parser.add_argument("--epochs", type=int, default=5, help="with labels")
    args = parser.parse_args()
    data = args.output / "digits/folder"
    eva(f"data make-demo --formats folder --output {data.parent}")
    common = "--run.resume run.tensorboard=False run.keep_checkpoints=1"
    found: dict[str, list[float]] = {"random": [], "distilled": []}
    for seed in args.seeds:
        student = args.output / f"student_{seed}"
        length = f"run.epochs={args.distill_epochs} teacher.cache={args.output}/features"
        more = f"{length} run.seed={seed} --output {student} {common}"
        eva(f"distill {data}/train {DISTILL} {more}")
        for name, start in (("random", ""), ("distilled", student)):
            run = args.output / f"{name}_{seed}"
            more = f"run.epochs={args.epochs} run.seed={seed} run.output={run} {common}"
            parts = f"data.train={data}/train data.val={data}/val model.init_checkpoint={start}"
            eva(f"{CLASSIFY} {parts} {more}")
            found[name].append(top1(run))
    for name, scores in found.items():
        each = ", ".join(f"{score:.1f}" for score in scores)
        spread = statistics.stdev(scores)
        sys.stdout.write(f"| {name} | {each} | {statistics.mean(scores):.1f} ± {spread:.1f} |\n")


if __name__ == "__main__":
    main()
