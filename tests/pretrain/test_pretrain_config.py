"""Settings of pre-training: what they refuse."""

import math

import pytest

from eva_engine.config import OptimizerConfig, RunConfig
from eva_pretrain.config import (
    DataConfig,
    MaskConfig,
    StudentConfig,
    TeacherConfig,
    TokenizerConfig,
)


@pytest.mark.parametrize(("kind", "values", "message"), [
    (StudentConfig, {"variant": "eva_debug", "image_size": 8_000_000}, r"in 1\.\.10000, got 8"),
    (TeacherConfig, {"image_size": 0}, r"image_size must be in 1\.\.10000, got 0"),
    (TeacherConfig, {"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, got 'fp8'"),
    (DataConfig, {"train": "x", "crop_scale": (1.0, 0.2)}, "crop_scale must be two rising numbers"),
    (DataConfig, {"train": "x", "crop_scale": (math.nan, 1.0)}, "crop_scale must be two rising"),
    (DataConfig, {"train": "x", "mean": (math.nan, 0.0, 0.0)}, "mean must be three finite numbers"),
    (DataConfig, {"train": "x", "std": (1.0, 0.0, 1.0)}, "std must be three finite numbers"),
    (MaskConfig, {"num_masked": 0}, "num_masked must be at least 1, got 0"),
    (MaskConfig, {"min_block": -1}, "min_block must be at least 1, got -1"),
])  # fmt: skip
def test_a_wrong_value_is_refused_by_name(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


@pytest.mark.parametrize(("values", "message"), [
    ({"num_codes": 10**12}, "num_codes must be at most 1048576, got 1000000000000"),
    ({"width": 10**8}, "width must be at most 16384, got 100000000"),
    ({"width": 33, "num_heads": 2}, "num_heads 2 does not divide width 33"),
])  # fmt: skip
def test_a_tokenizer_of_another_size_than_any_is_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(data=DataConfig(train="x"), optimizer=OptimizerConfig(lr=1.0),
                        run=RunConfig(output=tmp_path), **values)  # fmt: skip
