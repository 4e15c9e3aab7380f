"""A folder of pictures, each with a text file of the same name beside it."""

from pathlib import Path

from eva_data.captions.captioned_images import CaptionedImages
from eva_data.captions.left_out import LONGEST, LeftOut
from eva_data.captions.texts import UnreadableCaptionError, caption_of_text
from eva_data.files import IMAGE_SUFFIXES, LISTED_IMAGE_SUFFIXES, find_files, require_regular_file
from eva_data.index import CAPTION_KIND, Names, Table

_TEXT = ".txt"


class FolderCaptions(CaptionedImages):
    """Pictures with a text file beside each, which is read with its picture.

    Args:
        folder: The folder, searched with all its subfolders.
        table: The pictures, if they are known; see `index_folder`.
        left_out: What makes no pair.
    """

    def __init__(self, folder: Path, table: Table, *, left_out: LeftOut | None = None) -> None:
        super().__init__(left_out)
        self.folder, self.table, self.names = folder, table, Names(table)

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, index: int) -> str:
        """Name a picture by its path."""
        return str(self.source(index))

    def name(self, index: int) -> str:
        """Name a picture by its path below the folder."""
        return self.names[self.require(index)]

    def source(self, index: int) -> Path:
        """Name a file."""
        return self.folder / self.name(index)

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        file = self.source(index).with_suffix(_TEXT)
        try:
            require_regular_file(file)
            with file.open("rb") as stream:
                content = stream.read(LONGEST + 4)  # one byte more than a mark and the longest
        except OSError as error:
            raise UnreadableCaptionError(f"the caption cannot be read: {error}") from error
        return (caption_of_text(content, str(file)),)

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return self.names.checksum()


def index_folder(folder: Path, left_out: LeftOut) -> Table:
    """Search a folder for pictures with text files.

    Args:
        folder: The folder.
        left_out: Filled with pictures and texts that are alone.

    Returns:
        Arrays `names.*`, sorted as `find_files` does.

    Raises:
        ValueError: If it holds no picture.
    """
    pictures, texts = list[str](), set[str]()
    for name in find_files(folder, IMAGE_SUFFIXES | {_TEXT}):
        if name.endswith(_TEXT):
            texts.add(name)
        elif not name.lower().endswith(_TEXT):
            pictures.append(name)
    if not pictures:
        shards = " (it holds tar files: name them, such as {00000..00999}.tar)"
        more = shards if any(folder.glob("*.tar")) else ""
        raise ValueError(f"{folder} holds no image: looked for {LISTED_IMAGE_SUFFIXES}{more}")
    beside = {name: f"{name.rpartition('.')[0]}{_TEXT}" for name in pictures}
    for name, text in beside.items():
        if text not in texts:
            left_out.add("uncaptioned", str(folder / name))
    for text in sorted(texts - {*beside.values()}):
        left_out.add("unpictured", str(folder / text))
    found = Names.collect(name for name in pictures if beside[name] in texts)
    return Table(found.arrays(), kind=CAPTION_KIND)
