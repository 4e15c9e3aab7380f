"""A classifier that begins as a student of `eva distill`, beside one with random weights.

python benchmarks/distillation.py --seeds 0 1 2

Teacher `eva_debug`, student `eva_debug_small`, demo digits; equal steps on labels. A second call
with the same output goes on where the first was stopped.
"""

import json
import statistics
import sys
from pathlib import Path

from measuring import eva

from eva_runs.options import command_parser

DISTILL = """--teacher eva_debug --student eva_debug_small --image-size 48 optimizer.lr=3e-3
    data.crop_scale=[0.8,1] run.batch_size=32 run.epochs=3"""
CLASSIFY = """classification train eva_debug_digits model.variant=eva_debug_small run.ema_decay=0
    model.drop_path_rate=0 optimizer.layer_decay=1 run.epochs=5"""


if __name__ == "__main__":
    parser = command_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/distillation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    data = args.output / "digits/folder"
    eva(*f"data make-demo --formats folder --output {data.parent}".split())
    accuracies: dict[str, list[float]] = {"random": [], "distilled": []}
    for seed in args.seeds:
        common = f"--run.resume run.seed={seed} run.tensorboard=False run.keep_checkpoints=1"
        student = args.output / f"student_{seed}"
        words = f"{DISTILL} teacher.cache={args.output}/features --output {student} {common}"
        eva("distill", f"{data}/train", *words.split())
        for name, start in (("random", ""), ("distilled", student)):
            run = args.output / f"{name}_{seed}"
            parts = f"data.train={data}/train data.val={data}/val model.init_checkpoint={start}"
            eva(*f"{CLASSIFY} {parts} run.output={run} {common}".split())
            lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            accuracies[name].append([line["val_top1"] for line in lines if "val_top1" in line][-1])
    for name, scores in accuracies.items():
        each, mean = ", ".join(f"{score:.1f}" for score in scores), statistics.mean(scores)
        sys.stdout.write(f"| {name} | {each} | {mean:.1f} ± {statistics.stdev(scores):.1f} |\n")
