"""Search pictures and videos from Python, in three lines.

clip = ClipFeatures.from_weights("eva_clip_psz14.pt")
for hit in find(clip, "holiday/", "a dog in the snow", top=5):
    print(f"{hit.score:.2f} {hit.file}")
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.inference.indexing import absolute, update
from eva_contrastive.inference.library import Library
from eva_contrastive.inference.media import Media
from eva_contrastive.inference.searching import Hit, make_queries, search
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import files_at, is_several

logger = logging.getLogger(__name__)


def find(
    clip: ClipFeatures,
    files: Media | Sequence[Media],
    text: str = "",
    *,
    like: Media | None = None,
    top: int = 20,
) -> list[Hit]:
    """Find the pictures and videos that are most like a sentence, a picture, or both together.

    Features are computed each time; `clip/demo.py search` keeps them on the disk.

    Args:
        clip: The model, with its text tower if there is a text.
        files: A file, a folder, a pattern such as `photos/*.jpg`, or a list of these.
        text: What is looked for.
        like: Picture or video that is looked for.
        top: Number of hits.

    Returns:
        The hits in falling order of their scores; files that cannot be read are left out, with a
        warning.

    Raises:
        OSError: If `like` cannot be read.
        ValueError: If nothing is looked for, or a folder or pattern has no files.
    """
    given = [files] if isinstance(files, str | os.PathLike) else files
    (query,) = make_queries(
        clip,
        texts=[text] if text else [],
        like=[] if like is None else [Path(like)],
        together=True,
    )
    listed: list[Path] = []
    for one in map(Path, given):
        listed += files_at(one, DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES) if is_several(one) else [one]
    library = Library(None, {}, width=clip.embed_dim)
    changes = update(library, clip, listed)
    for why in changes.problems.values():
        logger.warning("%s", why)
    paths = dict.fromkeys(map(absolute, listed))
    (hits,) = search(library, [path for path in paths if path in library], [query], top=top)
    return hits
