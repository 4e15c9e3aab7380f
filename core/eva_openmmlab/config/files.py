"""Configs in files: what a run saves is data, and its texts stay as they are.

A config in Python is a program, and so are those that it inherits from. One in YAML or JSON is
data; mmengine would run whatever Python a YAML file asks for. In all of them mmengine replaces text
such as `{{ fileBasename }}` or `{{$HOME:/}}` while it reads, which the name of a class may be.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.fileio import BaseFileHandler, dump, load, register_handler
from mmengine.utils import import_modules_from_strings

from eva_data.files import write_text
from eva_openmmlab.external_configs import refuse_installation, serve_forks
from eva_runs.extras import sentence_of

_BRACE = re.compile(r"\{(?=\{)")  # where mmengine would begin to replace
# that a config in data may import
_MODULES = ("eva_segmentation.plugin", "eva_mmdetection.plugin", "mmdet.models")
_KIND = re.compile(
    r"((mmcv|mmdet|mmengine|mmpretrain|mmseg)\.)?[A-Z]\w*|pseudo_collate|default_collate"
)
serve_forks()
refuse_installation()
_DATA = (".json", ".yaml", ".yml")
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
        file.write(self.dump_to_str(obj, **kwargs))

    def dump_to_str(self, obj: Any, **kwargs: Any) -> str:
        """Return plain data as text.

        Args:
            obj: The data.
            **kwargs: Not used.
        """
        del kwargs
        return str(yaml.dump(obj, Dumper=_Dumper, width=float("inf"), allow_unicode=True))


class SavedConfig(Config):
    """A config that reads back as it was written, whatever its texts hold."""

    @classmethod
    def of(cls, cfg: Config) -> "SavedConfig":
        """Return the same config in this class.

        Args:
            cfg: Config of mmengine.
        """
        saved = cls.__new__(cls)
        saved.__setstate__(cfg.__getstate__())
        return saved

    @property
    def pretty_text(self) -> str:
        """The config in Python."""
        return _BRACE.sub(r"\\x7b", super().pretty_text)

    def dump(self, file: str | Path | None = None) -> str | None:
        """Write the config completely or not at all, or return it as text.

        Args:
            file: File in Python, YAML or JSON; None for text in the format of the config's own.

        Returns:
            The text, or None after writing.

        Raises:
            UnwritableError: If the disk is full or the folder read-only, for example.
        """
        if file is None:
            return str(super().dump())
        suffix = Path(file).suffix.lstrip(".")
        if suffix == "py":
            text = self.pretty_text
        else:  # YAML and JSON have the same escape, and braces are nowhere but in texts
            text = _BRACE.sub(r"\\u007b", dump(self.to_dict(), file_format=suffix))
        write_text(Path(file), text)
        return None


def read_config(path: Path, *, plugins: bool = True) -> Config:
    """Read a config.

    Args:
        path: The file.
        plugins: Import what its `custom_imports` names, and with it a framework; without, the
            config is there in less than a second, and `import_plugins` does it later.

    Returns:
        The config.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read; the message says why.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}")
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} is not a config; one ends in {', '.join(_SUFFIXES)}")
    if path.suffix != ".py":
        _check_data(path)
    try:
        cfg = Config.fromfile(path, import_custom_modules=plugins)
    except Exception as error:  # a config in Python is a program: it raises anything
        if missing := _missing(error):
            raise ValueError(missing) from error
        raise ValueError(f"{path} cannot be read as a config ({_reason(error)})") from error
    return SavedConfig.of(cfg)


def import_plugins(cfg: Config) -> None:
    """Import what a config names in `custom_imports`.

    Args:
        cfg: Config that was read without its plugins.

    Raises:
        ValueError: If it cannot be imported; the message says why.
    """
    imports = cfg.get("custom_imports")
    if not imports:
        return
    try:
        import_modules_from_strings(**imports)
    except Exception as error:  # whatever a module raises
        if missing := _missing(error):
            raise ValueError(missing) from error
        names = ", ".join(map(str, imports.get("imports") or ()))
        raise ValueError(
            f"custom_imports of {cfg.filename} ({names}) cannot be imported ({_reason(error)})"
        ) from error


def _check_data(path: Path, above: tuple[Path, ...] = ()) -> None:
    """Refuse a config in YAML or JSON that names other programs, itself or in what it inherits.

    mmengine imports what `custom_imports` and a `type` with dots name, and calls the latter. What
    it would replace in the text first could turn into either: `SavedConfig` escapes it.
    """
    try:
        if "{{" in path.read_text(encoding="utf-8"):
            raise ValueError("it holds '{{', which mmengine would replace; write it in Python")
        content = load(path)
    except Exception as error:  # of the readers
        raise ValueError(f"{path} cannot be read as a config ({_reason(error)})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a config but {type(content).__name__}")
    modules = (content.get("custom_imports") or {}).get("imports") or []
    names = [modules] if isinstance(modules, str) else list(modules)
    bases = content.get("_base_") or []
    programs = [str(base) for base in ([bases] if isinstance(bases, str) else bases)]
    wrong = [str(name) for name in names if str(name) not in _MODULES]
    wrong += [base for base in programs if "::" in base or Path(base).suffix not in _DATA]
    wrong += [str(kind) for kind in _types(content) if not _KIND.fullmatch(str(kind))]
    if wrong:
        raise ValueError(
            f"{path} is data and names programs: {', '.join(wrong[:3])}; if you trust it, write "
            "it in Python"
        )
    here = (*above, path.resolve())
    for base in programs:
        below = (path.parent / base).resolve()
        if below in here:
            raise ValueError(f"{path} inherits from itself")
        _check_data(below, here)


def _types(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        for key in ("type", "runner_type", "constructor"):
            if key in node:
                yield node[key]
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from _types(value)


def _missing(error: BaseException | None) -> str | None:
    """Say which package is not installed, where that is why a plugin cannot be imported."""
    while error is not None:  # mmengine's errors quote the name of the plugin alone
        if isinstance(error, ImportError) and (sentence := sentence_of(error)):
            return sentence
        error = error.__cause__ or error.__context__
    return None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text or 'without a message'}"
