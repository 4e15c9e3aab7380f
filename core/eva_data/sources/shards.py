"""The images in tar shards, as webdataset and img2dataset write them."""

from collections.abc import Sequence

from eva_data.pictures import UnreadableImageError, check_encoded_size
from eva_data.sources.image_source import ImageSource
from eva_data.sources.index_file import Table
from eva_data.sources.patterns import expand
from eva_data.sources.tar_members import TarMembers, index_members
from eva_data.suffixes import PICTURES
from eva_data.transforms import TensorTransform


class TarShards(ImageSource):
    """The images in tar shards, in the order of the shards and of their members.

    All members that are pictures count, whatever else (captions, labels) shares their key.

    Args:
        pattern: Pattern of the shards' paths, or several; see `expand`.
        transform: See `ImageSource`.
        table: The index; None looks through the shards.

    Raises:
        ValueError: If a shard is not there, damaged, compressed or without images, or if the index
            is of other shards.
    """

    def __init__(
        self,
        pattern: str | Sequence[str],
        transform: TensorTransform | None = None,
        *,
        table: Table | None = None,
    ) -> None:
        super().__init__(transform)
        shards = expand(pattern)
        if table is None:
            table = index_members(shards, PICTURES)
            if not len(table["shard"]):
                raise ValueError(f"no image in {shards[0]} (and {len(shards) - 1} more shards)")
        self._members = TarMembers(shards, table, what="image")

    def __len__(self) -> int:
        return len(self._members)

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.jpg`."""
        return self._members.sample_id(index)

    def read(self, index: int) -> bytes:
        """Read a member."""
        try:
            check_encoded_size(self._members.size(index), self.sample_id(index))
            return self._members.read(index)
        except UnreadableImageError:
            raise
        except OSError as error:
            raise UnreadableImageError(str(error)) from error

    def checksum(self) -> int:
        """See `ImageSource`; the shards' own paths do not matter."""
        return self._members.names.checksum()

    def index(self) -> Table:
        """Give the members' places, to be saved."""
        return self._members.table
