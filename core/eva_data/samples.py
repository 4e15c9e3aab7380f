"""Samples of stored files: all of a source, those that a manifest mixes, or some of them."""

import copy
import logging
import os
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from eva_data.holdout import holdout_mask, stem
from eva_data.index import StoredFiles, Table
from eva_data.manifests import SourceEntry

logger = logging.getLogger(__name__)

Source = TypeVar("Source", bound=StoredFiles)


class View(ABC, Generic[Source]):
    """Files of sources in another order, number or selection."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def checksum(self) -> int:
        """Compute a number that changes with the samples and their order, not with paths."""

    @abstractmethod
    def locate(self, index: int) -> tuple[Source, int]:
        """Find the source of a sample, and its index there."""


class Mixture(View[Source]):
    """Which sample of which source stands at each place of an epoch."""

    def __init__(self, sources: Sequence[Source], entries: Sequence[SourceEntry]) -> None:
        self._sources = sources
        self._counts = {}
        for entry, source in zip(entries, sources, strict=True):
            num_samples = max(1, round(entry.weight * len(source)))
            self._counts[entry.name] = min(num_samples, entry.limit or num_samples)
        self._ends = list(accumulate(self._counts.values()))
        logger.info("samples in an epoch: %s", self._counts)

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> tuple[Source, int]:
        """See `View`."""
        number = bisect_right(self._ends, index)
        begin = self._ends[number - 1] if number else 0
        source, count = self._sources[number], self._ends[number] - begin
        return source, (index - begin) * len(source) // count  # evenly over all of them

    def checksum(self) -> int:
        """See `View`; weights and limits count."""
        value = zlib.crc32(repr(self._counts).encode())
        for source in self._sources:
            value = zlib.crc32(source.checksum().to_bytes(4, "little"), value)
        return value


class Choice(View[Source]):
    """Some samples of a source or view, by their indexes there."""

    def __init__(
        self, samples: Source | View[Source], indices: Sequence[int] | NDArray[Any]
    ) -> None:
        self._samples, self._places = samples, np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def locate(self, index: int) -> tuple[Source, int]:
        """See `View`."""
        return locate(self._samples, int(self._places[index]))

    def checksum(self) -> int:
        """See `View`."""
        return zlib.crc32(self._places.tobytes(), self._samples.checksum())


def locate(files: Source | View[Source], index: int) -> tuple[Source, int]:
    """Find the source of a sample, and its index there."""
    return files.locate(index) if isinstance(files, View) else (files, index)


class Samples(Generic[Source]):
    """Samples by their index: files of one source, or a view of several; nothing is open."""

    def __init__(self, files: Source | View[Source]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def locate(self, index: int) -> tuple[Source, int]:
        """Find the source of a sample, and its index there."""
        return locate(self.files, index)

    @property
    def source(self) -> Source:
        """The only source, whose samples are in its order."""
        assert not isinstance(self.files, View)
        return self.files

    @property
    def table(self) -> Table:
        """The part of an index that names the samples of the only source."""
        return self.source.table

    def sample_id(self, index: int) -> str:
        """Name a sample by its path, or shard and member, `folder/00000.tar:key.jpg`."""
        files, position = self.locate(index)
        return files.sample_id(position)

    def name(self, index: int) -> str:
        """Name a sample without the place of its dataset, as a list would."""
        files, position = self.locate(index)
        return files.name(position)

    def checksum(self) -> int:
        """Compute a number that changes with the samples' names or order, not with their place.

        The content of files and members is not read.
        """
        return self.files.checksum()

    def subset(self, indices: Sequence[int] | NDArray[Any]) -> Self:
        """Take some of the samples by their indexes, in that order."""
        selected = copy.copy(self)
        selected.files = Choice(self.files, indices)
        return selected

    def hold_out(self, fraction: float, *, name: str) -> tuple[Self, Self]:
        """Split the samples by their names without suffix, of shards by their keys.

        A sample that a manifest names several times is on one side, that of its first name; among
        those that are held out, which come second, it is once. See `eva_data.holdout`; `name` is
        that of the setting.
        """
        every = range(len(self))
        names = (stem(self.name(index)) for index in every)
        if isinstance(self.files, View):  # whose sources may name a file below other folders
            first: dict[str, str] = {}
            paths = (os.path.normpath(self.sample_id(index)) for index in every)
            names = (first.setdefault(path, name) for path, name in zip(paths, names, strict=True))
        is_held_out = holdout_mask(names, fraction, name=name)
        backwards = np.flatnonzero(is_held_out)[::-1].tolist()
        once = {os.path.normpath(self.sample_id(index)): index for index in backwards}
        return self.subset(np.flatnonzero(~is_held_out)), self.subset(sorted(once.values()))


class LabelledSamples(Samples[Source]):
    """Samples with `labels`, (number of samples,), which are held out by class."""

    labels: NDArray[np.int32]

    def subset(self, indices: Sequence[int] | NDArray[Any]) -> Self:
        """See `Samples`; labels go with their samples."""
        selected = super().subset(indices)
        selected.labels = self.labels[np.asarray(indices, np.int64)]
        return selected

    def hold_out(self, fraction: float, *, name: str) -> tuple[Self, Self]:
        """Split the samples of each class by their names; see `eva_data.holdout`."""
        names = map(self.name, range(len(self)))
        held = holdout_mask(names, fraction, classes=self.labels.tolist(), name=name)
        return self.subset(np.flatnonzero(~held)), self.subset(np.flatnonzero(held))
