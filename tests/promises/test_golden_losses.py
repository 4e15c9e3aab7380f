"""The first losses of each trainer's debug recipe are those of `tests/golden/losses.json`.

They change where a model, an objective, an optimizer, the order of data or an augmentation changes.
If that was meant, write them anew and say in the commit message why:

    EVA_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/promises/test_golden_losses.py

Tolerance: 1e-3 of each loss, and 2e-4 for losses around zero.
"""

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke
GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
STEPS = 5
NAMES = (
    *("pretrain", "classification", "video", "clip"),
    *("detection", "mmdetection", "segmentation"),
)


@pytest.mark.parametrize("name", NAMES)
def test_first_losses(name, trainers, finished):
    lines, loss = trainers(name).logged(finished(name)), trainers(name).loss
    losses = [line[loss] for line in lines if loss in line][:STEPS]
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("EVA_WRITE_GOLDEN"):
        golden[name] = [round(loss, 6) for loss in losses]
        GOLDEN.write_text(json.dumps(dict(sorted(golden.items())), indent=2) + "\n")
    assert losses == pytest.approx(golden[name], rel=1e-3, abs=2e-4)
