"""Configs in files: what a run saves is data, and its names stay what they are.

A config in Python is a program, and so are those that it inherits from. One in YAML or JSON is
data; mmengine would run whatever Python a YAML file asks for. In all of them mmengine replaces text
such as `{{ fileBasename }}` or `{{$HOME:/}}` while it reads, which the name of a class may be.
"""

import io
import re
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.fileio import BaseFileHandler, dump, register_handler

_BRACE = re.compile(r"\{(?=\{)")  # where mmengine would begin to replace
_SUFFIXES = (".json", ".py", ".yaml", ".yml")


class _Loader(yaml.SafeLoader):
    """Plain data, and the tuples of a config that was saved."""


class _Dumper(yaml.SafeDumper):
    """The same, with braces in double quotes, where they can be escaped."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal parts out, for people to read."""
        del data
        return True


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if "{{" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_TUPLE = "tag:yaml.org,2002:python/tuple"
_Loader.add_constructor(_TUPLE, _tuple)
_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_sequence(_TUPLE, value))


@register_handler(["yaml", "yml"])
class SafeYamlHandler(BaseFileHandler):
    """mmengine's reader and writer of YAML, without its Python objects."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Read plain data.

        Args:
            file: An open file.
            **kwargs: Not used.
        """
        del kwargs
        return yaml.load(file, Loader=_Loader)

    def dump_to_fileobj(self, obj: Any, file: Any, **kwargs: Any) -> None:
        """Write plain data.

        Args:
            obj: The data.
            file: An open file.
            **kwargs: Not used.
        """
        del kwargs
        yaml.dump(obj, file, Dumper=_Dumper, width=float("inf"), allow_unicode=True)

    def dump_to_str(self, obj: Any, **kwargs: Any) -> str:
        """Plain data as text.

        Args:
            obj: The data.
            **kwargs: Not used.
        """
        stream = io.StringIO()
        self.dump_to_fileobj(obj, stream, **kwargs)
        return stream.getvalue()


class SavedConfig(Config):
    """A config that reads back as it was written, whatever its texts hold."""

    @classmethod
    def of(cls, cfg: Config) -> "SavedConfig":
        """The same config.

        Args:
            cfg: From mmengine.
        """
        saved = cls.__new__(cls)
        saved.__setstate__(cfg.__getstate__())
        return saved

    @property
    def pretty_text(self) -> str:
        """The config in Python."""
        return _BRACE.sub(r"\\x7b", super().pretty_text)

    def dump(self, file: str | Path | None = None) -> str | None:
        """Write the config, or give it as text.

        Args:
            file: In Python, YAML or JSON; None for text in the format of the config's own file.

        Returns:
            The text, or None after writing.
        """
        if file is None or Path(file).suffix == ".py":
            text: str | None = super().dump(file)
            return text
        suffix = Path(file).suffix.lstrip(".")
        # the same escape in both, and braces are nowhere but in texts
        text = _BRACE.sub(r"\\u007b", dump(self.to_dict(), file_format=suffix))
        Path(file).write_text(text, encoding="utf-8")
        return None


def read_config(path: Path) -> Config:
    """Read a config.

    Args:
        path: The file.

    Returns:
        The config.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read; the message says why.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}")
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} is no config; one ends in {', '.join(_SUFFIXES)}")
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config in Python is a program: it raises anything
        reason = " ".join(str(error).split()) or "without a message"
        raise ValueError(
            f"{path} cannot be read as a config ({type(error).__name__}: {reason[:300]})"
        ) from error
    return SavedConfig.of(cfg)
