"""Official files in mmdetection: by name or path, by our loader and by mmengine's own."""

import pytest
import torch

from eva_mmdetection.model.detectron2_names import to_detectron2
from eva_mmdetection.plugin import load_detector


def _same(model, other):
    state = other.state_dict()
    assert model.state_dict().keys() == state.keys()
    return [n for n, value in model.state_dict().items() if not torch.equal(value, state[n])]


@pytest.fixture(params=["name", "path"])
def official_file(request, build_small, tmp_path, monkeypatch, official):
    """An official file of a small detector, as the user names it, and the detector."""
    model = build_small(seed=1)
    file = tmp_path / "eva_coco_seg.pth"
    torch.save({"model": to_detectron2(model.state_dict())[0]}, file)
    official(file)
    if request.param == "name":
        monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
        return file.name, model
    return str(file), model


def test_an_official_file_is_loaded_completely(official_file, build_small):
    source, expected = official_file
    model = build_small()
    load_detector(model, source, complete=True)
    assert not _same(model, expected)


def test_other_classes_and_new_masks_start_from_scratch(build_small, tmp_path):
    source = build_small(5, masks=False, seed=1)
    torch.save({"model": to_detectron2(source.state_dict())[0]}, tmp_path / "o365.pth")
    model = build_small()
    report = load_detector(model, tmp_path / "o365.pth")
    scratch = {name for name in model.state_dict() if "mask_head" in name or "fc_cls" in name}
    assert set(report.missing) == scratch
    with pytest.raises(ValueError, match="does not fit the model"):
        load_detector(build_small(), tmp_path / "o365.pth", complete=True)
