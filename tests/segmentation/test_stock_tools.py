"""mmsegmentation's own train and test tools on the path of a recipe, from any folder.

As `mim train mmseg PATH` and `mim test mmseg PATH` call them: recipes inherit by paths of their
own, and name the plugin.
"""

import runpy
import sys
from pathlib import Path

import mmseg
import pytest
import torch

from eva_runs.recipes import find_recipe

TOOLS = Path(mmseg.__path__[0]) / ".mim" / "tools"
SHORT = [
    "train_cfg.max_iters=1",
    "train_cfg.val_interval=1",
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.batch_size=1",
    "test_dataloader.batch_size=1",
    "log_level=WARNING",
]


@pytest.fixture
def stock_tool(tmp_path, monkeypatch, forget_runs):
    """Function: run one of the tools in another folder, and leave the process as it was."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def run(tool, *arguments):
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        monkeypatch.setenv("LOCAL_RANK", "0")
        precision = torch.get_float32_matmul_precision()
        try:
            runpy.run_path(str(TOOLS / tool), run_name="__main__")
        finally:
            forget_runs()
            torch.set_float32_matmul_precision(precision)

    return run


@pytest.mark.filterwarnings("ignore:The draw is False:UserWarning")
def test_a_recipe_trains_and_is_scored_by_its_path(stock_tool, write_pairs, tmp_path):
    for part, names in (("training", "ab"), ("validation", "a")):
        sizes = dict.fromkeys(names, (128, 128))
        root = tmp_path / "scenes"
        write_pairs(root / "images" / part, root / "annotations" / part, sizes, range(6))
    recipe, run = find_recipe("segmentation", "upernet_eva_debug").resolve(), tmp_path / "run"
    loaders = ("train_dataloader", "val_dataloader", "test_dataloader")
    data = [f"{loader}.dataset.data_root={root}" for loader in loaders]
    stock_tool("train.py", recipe, "--work-dir", run, "--cfg-options", *SHORT, *data)
    assert (run / "iter_1.pth").is_file()
    scored = tmp_path / "scored"
    stock_tool(
        "test.py", recipe, run / "iter_1.pth", "--work-dir", scored, "--cfg-options", *SHORT, *data
    )
    assert len(list(scored.glob("*/*.json"))) == 1


def test_print_config_shows_a_recipe(stock_tool, capsys):
    recipe = find_recipe("segmentation", "ade20k/mask2former_eva_g_896_20k").resolve()
    stock_tool("misc/print_config.py", recipe)
    assert "EVAViTAdapter" in capsys.readouterr().out
