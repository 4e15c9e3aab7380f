"""Contact sheets: where pictures and words come, and what is cut."""

import numpy as np
import pytest
from PIL import Image

from eva_report.drawing import clock, font, shortened
from eva_report.sheets import (
    COLUMNS,
    SIDE,
    SheetSection,
    Tile,
    draw_contact_sheet,
)

BACK = (20, 20, 20)
WHITE = 250


def tile(colour, *, size=(SIDE, SIDE), heading="", name=""):
    return Tile(Image.new("RGB", size, colour), heading, name)


def words(sheet):
    """Rows of pixels in which something white is written."""
    return np.flatnonzero((np.asarray(sheet).min(axis=2) >= WHITE).any(axis=1))


def test_tiles_fill_rows_from_the_left():
    colours = [(255, 20 * number, 0) for number in range(COLUMNS + 2)]
    sheet = np.asarray(draw_contact_sheet([SheetSection("", [tile(colour) for colour in colours])]))
    left = 8 + np.arange(COLUMNS) * (SIDE + 8)
    top = 44 + 8
    below = (len(sheet) - 44) // 2
    for number, colour in enumerate(colours):
        y, x = top + below * (number // COLUMNS), left[number % COLUMNS]
        assert (sheet[y : y + SIDE, x : x + SIDE] == colour).all()
        assert (sheet[y : y + SIDE, x - 8 : x] == BACK).all()
    assert (sheet[top + below :, left[2] :] == BACK).all()


@pytest.mark.parametrize("size", [(40, 20), (2000, 1000), (2, 1)])
def test_a_picture_keeps_its_proportions(size):
    sheet = np.asarray(draw_contact_sheet([SheetSection("", [tile((0, 255, 0), size=size)])]))
    green = (sheet == (0, 255, 0)).all(axis=2)
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    assert (len(rows), len(columns)) == (SIDE // 2, SIDE)
    assert rows[0] == 44 + 8 + SIDE // 4


def test_headings_lie_below_their_pictures_and_titles_above():
    sheet = draw_contact_sheet([SheetSection("TITLE", [tile((0, 0, 0), heading="0.5")])])
    rows = words(sheet)
    assert rows.min() < 44
    assert rows.max() > 44 + SIDE
    assert not ((rows >= 44) & (rows < 44 + SIDE)).any()
    plain = words(draw_contact_sheet([SheetSection("", [tile((0, 0, 0))])]))
    assert not len(plain)


def test_long_names_do_not_run_into_their_neighbours():
    tiles = [tile((0, 0, 0), heading="W" * 400), tile((0, 0, 0))]
    sheet = np.asarray(draw_contact_sheet([SheetSection("W" * 999, tiles)]))
    white = (sheet[44:].min(axis=2) >= WHITE).any(axis=0)
    assert white[: 8 + SIDE].any()
    assert not white[8 + SIDE :].any()


def test_a_picture_that_could_not_be_read_is_grey():
    sheet = np.asarray(draw_contact_sheet([SheetSection("", [Tile(None, "", "")])]))
    assert (sheet[44 + 8 : 44 + 8 + SIDE, 8 : 8 + SIDE] == (58, 58, 58)).all()


def test_sections_lie_below_each_other_and_may_be_empty():
    one = draw_contact_sheet([SheetSection("a", [tile((0, 0, 0))])])
    both = draw_contact_sheet([SheetSection("a", [tile((0, 0, 0))]), SheetSection("b", [])])
    assert both.height == one.height + 44
    assert np.array_equal(np.asarray(both)[: one.height], np.asarray(one))


def test_names_that_are_not_text():
    draw_contact_sheet(
        [SheetSection("\udcff", [tile((0, 0, 0), heading="a\nb", name="\udcff.png")])]
    )


def test_a_text_is_cut_where_it_is_too_wide():
    letters = font(14)
    text = "a rather long name of a file"
    assert shortened(text, letters, 1000) == text
    cut = shortened(text, letters, 100)
    assert cut.endswith("...")
    assert text.startswith(cut[:-3])
    assert letters.getlength(cut) <= 100
    assert shortened(" two\n lines ", letters, 1000) == "two lines"
    assert shortened(text, letters, 0) == "..."


def test_times():
    assert clock(0) == "0:00.0"
    assert clock(59.96) == "1:00.0"
    assert clock(75.24) == "1:15.2"
    assert clock(3 * 3600 + 62) == "3:01:02.0"
