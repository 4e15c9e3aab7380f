"""Checkpoints of mmengine: logged numbers, code, and names of classes that do not fit."""

import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmseg.apis import init_model
from mmseg.registry import MODELS
from mmseg.utils import get_classes, get_palette

from eva_segmentation.model.segmentor import NamedClasses, load_segmentor


@pytest.fixture
def model(load_config):
    """The demo's segmentor."""
    return MODELS.build(load_config("demo/mask2former_eva_debug").model)


def test_logged_numbers_beside_the_weights(model, tmp_path):
    name = "decode_head.cls_embed.bias"
    weights = model.state_dict() | {name: torch.full((6,), 0.5)}
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    content = {"state_dict": weights, "message_hub": {"log_scalars": buffer}}
    torch.save(content, tmp_path / "run.pth")
    load_segmentor(model, tmp_path / "run.pth", complete=True)
    assert (model.state_dict()[name] == 0.5).all()


def test_init_model_of_mmsegmentation_runs_no_code(load_config, malice, tmp_path):
    """mmengine unpickles what it cannot read safely, if this package did not read in its place."""
    cfg = load_config("demo/mask2former_eva_debug")
    weights = MODELS.build(cfg.model).state_dict()
    meta = {"dataset_meta": {"classes": list("abcde"), "palette": [[0, 0, 0]]}}
    torch.save({"state_dict": weights, "meta": meta}, tmp_path / "good.pth")
    found = init_model(cfg, str(tmp_path / "good.pth"), device="cpu")
    assert found.dataset_meta["classes"] == list("abcde")
    meta["more"] = malice(tmp_path / "harm")
    torch.save({"state_dict": weights, "meta": meta}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth"):
        init_model(cfg, str(tmp_path / "bad.pth"), device="cpu")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("count", "data_set"), [(150, "ade"), (171, "cocostuff")])
def test_official_files_get_the_names_of_their_data_set(count, data_set):
    model = NamedClasses()
    model.num_classes = count
    model.dataset_meta = {
        "classes": get_classes("cityscapes"),
        "palette": get_palette("cityscapes"),
    }
    assert model.dataset_meta["classes"] == get_classes(data_set)
    assert model.dataset_meta["palette"] == get_palette(data_set)
