"""The command lines of training and evaluation, and mmdetection's own tools and functions."""

import pytest
import torch
from mmdet.apis import init_detector
from safetensors.torch import save_file

from eva_mmdetection.model.detectron2_names import to_detectron2


@pytest.mark.parametrize(("form", "suffix"), [("mmdet", ".safetensors"), ("detectron2", ".pth")])
@pytest.mark.filterwarnings("ignore:dataset_meta or class names are not saved:UserWarning")
def test_mmdetections_functions_take_converted_files(form, suffix, tiny_run, tmp_path):
    weights = torch.load(tiny_run / "iter_3.pth", weights_only=False)["state_dict"]  # of a test
    file = tmp_path / f"weights{suffix}"
    converted = dict(weights) if form == "mmdet" else to_detectron2(weights)[0]
    if suffix == ".pth":
        torch.save({"model": converted}, file)
    else:
        save_file(converted, file)
    model = init_detector(str(tiny_run / "tiny.py"), str(file), device="cpu")
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
