"""Settings of pre-training: what they refuse."""

import pytest

from eva_pretrain.config import DataConfig, MaskConfig, StudentConfig, TeacherConfig


@pytest.mark.parametrize(("kind", "values", "message"), [
    (StudentConfig, {"variant": "vit"}, "variant is 'vit'"),
    (StudentConfig, {"variant": "eva_g_patch14", "image_size": 225}, "does not divide 225"),
    (TeacherConfig, {"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, got 'fp8'"),
    (DataConfig, {"train": "x", "crop_scale": (1.0, 0.2)}, "crop_scale must be two rising numbers"),
    (DataConfig, {"train": "x", "std": (1.0, 0.0, 1.0)}, "std must be three finite numbers"),
    (MaskConfig, {"num_masked": 0}, "num_masked must be at least 1, got 0"),
])  # fmt: skip
def test_a_wrong_value_is_refused_by_name(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)
