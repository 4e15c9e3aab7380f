"""What a test's processes do (see tests/eva_engine/launcher.py): count, or one of the commands."""

import json
import os
import sys
from pathlib import Path

import conftest
import matplotlib.figure  # noqa: F401 (here once, and not in each process)
import torch

from eva_classification import evaluate_command, extract_command, frozen_command, training
from eva_engine import distributed
from eva_engine.evaluation.counting import AnyLabel, OneLabel, count


def main(arguments):
    command, *rest = arguments
    if command == "count":
        count_case(json.loads(Path(rest[0]).read_text()), rest[1])
    elif command == "train":
        sys.argv[1:] = rest
        training.main()
    else:
        {
            "evaluate": evaluate_command.main,
            "extract": extract_command.main,
            "frozen": frozen_command.main,
        }[command](rest)


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
