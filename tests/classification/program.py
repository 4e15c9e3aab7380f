"""What a test's processes do (see tests/eva_engine/launcher.py): count, or the command."""

import json
import os
from pathlib import Path

import conftest
import matplotlib.figure  # noqa: F401 (here once, and not in each process)
import torch

from eva_classification import evaluate_command
from eva_classification.counting import AnyLabel, OneLabel, count
from eva_engine import distributed


def main(arguments):
    if arguments[0] == "count":
        count_case(json.loads(Path(arguments[1]).read_text()), arguments[2])
    else:
        evaluate_command.main(arguments)


def count_case(case, result):
    """Every process counts, and writes what it has got."""
    device = distributed.start("cpu") if "RANK" in os.environ else torch.device("cpu")
    samples = conftest.Numbered(case["labels"], classes=len(case["logits"][0]))
    model = conftest.Prescribed(case["logits"])
    rules = {"one": OneLabel(), "some": OneLabel(case["columns"]), "any": AnyLabel(case["any"])}
    counted = count(model, samples, rules, device=device, batch_size=3, confusion=True)
    text = json.dumps({
        "scores": {name: vars(score) for name, score in counted.scores.items()},
        "confusion": counted.confusion.tolist(),
        "right5": counted.right5.tolist(),
        "seen": [n for batch in model.seen for n in batch],
    })  # fmt: skip
    Path(f"{result}{distributed.rank()}").write_text(text)
    distributed.stop()
