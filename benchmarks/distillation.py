"""A student that learned its teacher's features, beside the same one without, on demo data."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

OUTPUT = Path("output/distillation")
DATA = f"{OUTPUT}/digit_scenes/folder"
STUDENT = f"""distill {DATA}/train --teacher eva_debug --student eva_debug_small --image-size 48
    teacher.cache={OUTPUT}/features run.epochs=1 run.batch_size=32"""
CLASSIFIER = f"""classification train eva_debug_digits model.variant=eva_debug_small run.ema_decay=0
    data.train={DATA}/train optimizer.layer_decay=1 run.evaluate_every=0"""
LABELS = {  # about as many steps
    "all": f"data.val={DATA}/val run.epochs=1",
    "tenth": "data.val_share=0.9 run.epochs=10",
}


def eva(words: str) -> None:
    """Run a command of `eva`."""
    subprocess.run([sys.executable, "-m", "eva_command", *words.split()], check=True)


if __name__ == "__main__":
    eva(f"data make-demo --formats folder --output {OUTPUT}/digit_scenes")
    found: dict[tuple[str, str], list[float]] = {}
    for seed in (0, 1, 2):
        student = OUTPUT / f"student_{seed}"
        eva(f"{STUDENT} run.seed={seed} --output {student}")
        for labels, settings in LABELS.items():
            for name, start in (("random", ""), ("distilled", student)):
                run = OUTPUT / f"{name}_{labels}_{seed}"
                more = f"model.init_checkpoint={start} run.seed={seed} run.output={run}"
                eva(f"{CLASSIFIER} {settings} {more}")
                last = (run / "metrics.jsonl").read_text().splitlines()[-1]
                found.setdefault((labels, name), []).append(json.loads(last)["val_top1"])
    for (labels, name), scores in found.items():
        each = ", ".join(f"{score:.1f}" for score in scores)
        sys.stdout.write(f"| {labels} | {name} | {statistics.mean(scores):.1f} ({each}) |\n")
