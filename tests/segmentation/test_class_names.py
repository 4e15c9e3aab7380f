"""Names that mmsegmentation's inferencers give a model, if they fit its classes."""

import pytest
from mmseg.utils import get_classes, get_palette

from eva_segmentation.model.segmentor import NamedClasses


def _model(count):
    model = NamedClasses()
    model.num_classes = count
    return model


def test_names_that_fit_stay_and_colours_are_completed():
    model = _model(2)
    assert not hasattr(model, "dataset_meta")
    model.dataset_meta = {"classes": ("road", "sky"), "palette": [[1, 2, 3], [4, 5, 6]]}
    assert model.dataset_meta == {"classes": ["road", "sky"], "palette": [[1, 2, 3], [4, 5, 6]]}
    for palette in (None, [[1, 2, 3]]):
        model.dataset_meta = {"classes": ["road", "sky"], "palette": palette}
        assert len({tuple(color) for color in model.dataset_meta["palette"]}) == 2


@pytest.mark.parametrize(("count", "data_set"), [(150, "ade"), (171, "cocostuff")])
def test_official_files_get_the_names_of_their_data_set(count, data_set):
    model = _model(count)
    model.dataset_meta = {
        "classes": get_classes("cityscapes"),
        "palette": get_palette("cityscapes"),
    }
    assert model.dataset_meta["classes"] == get_classes(data_set)
    assert model.dataset_meta["palette"] == get_palette(data_set)
