"""Features of classes kept on the disk, by what they were computed from."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eva_backbone.checkpoints.verification import sha256_of
from eva_data.files import UnwritableError, make_folder, require_regular_file, write_tensors
from eva_engine import distributed

logger = logging.getLogger(__name__)

_FORMAT = 1
_NAME, _KEY, _DIGEST = "features", "key", "sha256"  # of the tensor and of its notes


class TextCache:
    """A folder with a file for each list of classes, sentences, weights and number format.

    A file that is damaged, or has another content than its name says, counts as not there and is
    written again.

    Args:
        folder: The folder; it is made with the first file.
        weights: File of the model's weights, whose digest is part of the key.
        text_heads: Attention heads of the text tower where they are given: not of the file, but
            features depend on them.

    Raises:
        OSError: If the weights cannot be read.
    """

    def __init__(
        self, folder: Path, weights: str | os.PathLike[str], *, text_heads: int | None = None
    ) -> None:
        self._folder, self._text_heads = folder, text_heads
        # read by one process: others of the same machine would only slow it down
        problem: OSError | None = None
        digest = ""
        if distributed.rank() == 0:
            try:
                digest = sha256_of(weights)
            except OSError as error:
                problem = error
        distributed.raise_together(problem)
        self._weights: str = distributed.gather(digest)[0]

    def key(
        self,
        classes: Sequence[str],
        templates: Sequence[str],
        *,
        dtype: torch.dtype,
        context_length: int,
    ) -> str:
        """Make the key of features.

        Args:
            classes: Names of the classes.
            templates: Sentences about them.
            dtype: Number format of the weights in use.
            context_length: Tokens of a text.

        Returns:
            A digest in hexadecimal digits.
        """
        content = {
            "format": _FORMAT, "weights": self._weights, "classes": list(classes),
            "templates": list(templates), "dtype": str(dtype), "context_length": context_length,
            "text_heads": self._text_heads,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def file(self, key: str) -> Path:
        """Name the file of a key."""
        return self._folder / f"text_features_{key[:24]}.safetensors"

    def read(self, key: str, shape: tuple[int, int]) -> Tensor | None:
        """Read features in the first process for all of them; the same call on all.

        Args:
            key: Key of the features.
            shape: Shape that they must have, (K, D).

        Returns:
            (K, D), float32, on the CPU; None if they are not there or damaged.
        """
        found = self._read(key, shape) if distributed.rank() == 0 else None
        result: Tensor | None = distributed.gather(found)[0]
        return result

    def _read(self, key: str, shape: tuple[int, int]) -> Tensor | None:
        file = self.file(key)
        if not file.exists():
            return None
        try:
            require_regular_file(file)
            with safe_open(file, framework="pt") as content:
                notes = content.metadata() or {}
                features: Tensor = content.get_tensor(_NAME)
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s is damaged and is written again (%s)", file, error)
            return None
        right = notes.get(_KEY) == key and features.dtype == torch.float32
        if not right or features.shape != shape or notes.get(_DIGEST) != _digest(features):
            logger.warning("%s is not what its name says and is written again", file)
            return None
        return features

    def write(self, key: str, features: Tensor) -> None:
        """Keep features; a disk that is full or read-only is a warning."""
        file, values = self.file(key), features.float().cpu().contiguous()
        try:
            make_folder(self._folder)
            if file.is_dir() or (file.exists() and not file.is_file()):
                raise UnwritableError(f"{file} is not a file")
            write_tensors({_NAME: values}, file, {_KEY: key, _DIGEST: _digest(values)})
        except OSError as error:
            logger.warning("features of classes are not kept for the next time: %s", error)


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().tobytes()).hexdigest()
