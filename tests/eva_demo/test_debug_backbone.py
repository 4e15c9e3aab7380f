"""The debug backbone: its targets, its training program, and the weights that ship."""

import json

import pytest
import torch
from safetensors import safe_open

from eva_backbone import eva_debug, load_pretrained
from eva_backbone.checkpoints.registry import bundled_path
from eva_demo import debug_backbone


@pytest.mark.slow
def test_a_short_training_makes_weights_that_load(tmp_path):
    assert debug_backbone.main(["--output", str(tmp_path), "--steps=2"]) == 0
    load_pretrained(eva_debug(), tmp_path / "eva_debug.safetensors", complete=True)
    with safe_open(tmp_path / "eva_debug.safetensors", "pt") as file:
        assert file.metadata()["made_by"].endswith("--output RUN --steps 2")


def test_shipped_weights_are_small_and_load_by_name():
    path = bundled_path("eva_debug")
    assert path.stat().st_size < 2.5e6
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    report = load_pretrained(eva_debug(), "eva_debug", complete=True)
    assert not report.skipped
    record = json.loads(path.with_suffix(".json").read_text())
    assert max(record["result"]["linear"], record["result"]["nearest_neighbours"]) >= 0.92
