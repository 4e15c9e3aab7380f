"""Scores as people read them."""

import pytest

from eva_report.content import score_name


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("top1", "top-1"),
        ("ema_top5", "ema top-5"),
        ("image_to_text_r1", "image to text R@1"),
        ("bbox/AP50", "box AP50"),
        ("coco/segm_mAP", "mask AP"),
        ("mIoU", "mIoU"),
    ],
)
def test_scores_are_written_for_people(name, title):
    assert score_name(name) == title
