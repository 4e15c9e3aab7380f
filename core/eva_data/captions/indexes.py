"""Some of the pairs of a source, and the index that lists them."""

import numpy as np
from numpy.typing import NDArray

from eva_data.captions.listed import CAPTIONS, FIRST
from eva_data.index import CAPTION_KIND, Names, Table


def select(table: Table, keep: NDArray[np.bool_]) -> Table:
    """Take some of the pairs of a source.

    Args:
        table: Its pairs.
        keep: Which are taken, (number of pairs,).

    Returns:
        A table of the same arrays.
    """
    names = Names(table)
    arrays = dict(Names.collect(names[int(index)] for index in np.flatnonzero(keep)).arrays())
    if FIRST in table:
        texts, counts = Names(table, CAPTIONS), np.diff(table[FIRST])
        kept = np.flatnonzero(np.repeat(keep, counts))
        arrays |= Names.collect((texts[int(place)] for place in kept), CAPTIONS).arrays()
        arrays[FIRST] = np.concatenate([[0], np.cumsum(counts[keep])])
    for name in table:
        if name not in arrays:
            arrays[name] = np.ascontiguousarray(table[name][keep])
    return Table(arrays, table.about, kind=CAPTION_KIND)
