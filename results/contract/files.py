"""Files, read and written the same way on every floor: JSON, strict YAML, checksums, outputs.

The types of contents are checked by msgspec, which is imported when a file is read: the instrument
needs none. Plain YAML keeps the last of two equal keys, and nested aliases can expand beyond any
memory. Here both are errors, and no tag builds anything but text, numbers, lists and mappings.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import quoted

T = TypeVar("T")

FIGURE_SUFFIXES = (".png", ".svg", ".csv")
LARGEST_JSON = 256 << 20
"""Bytes. A larger file is refused before it fills the memory."""


def read_json(path: Path) -> dict[str, Any]:
    """The contents of a JSON file that holds an object.

    Raises MapflowError, naming the file, if it is absent, unreadable, too large or holds something
    else.
    """
    try:
        content = json.loads(_json_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise MapflowError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def is_there(path: Path) -> bool:
    """Whether the file is there. Raises MapflowError if it is no file: a folder, a pipe, a link to
    nothing.
    """
    if not path.is_file() and os.path.lexists(path):
        raise MapflowError(f"{quoted(str(path), 300)} is not a file: remove it")
    return path.is_file()


def read_checked(path: Path, kind: Any) -> Any:
    """The contents of a JSON file of mapflow's own, of the type `kind`; errors as `checked_json`.

    Fields that a typed dictionary lacks are kept and not checked.
    """
    import msgspec

    def decode(data: bytes) -> Any:
        content = msgspec.json.decode(data)
        msgspec.convert(content, kind)
        return content

    return checked_json(_json_bytes(path), decode, f"{path} cannot be read")


def checked_json(data: bytes, decode: Callable[[bytes], T], where: str) -> T:
    """What one of msgspec's decoders makes of strict JSON: no NaN, no half of a surrogate pair.

    Raises MapflowError: `where`, and in brackets the mistake, or the field with its value and what
    it should be.
    """
    try:
        return decode(data)
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{where} ({_mistake(error, data)})") from None


def checked(content: Any, kind: Any, where: str) -> Any:
    """Parsed content, such as YAML's, as the type `kind`; errors as `checked_json`."""
    import msgspec

    try:
        return msgspec.convert(content, kind)
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{where} ({_wrong_type(error, content)})") from None


def _json_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise MapflowError(f"folder {path.parent} has no {path.name}")
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise MapflowError(f"{path} has more than {LARGEST_JSON:,} bytes: it is not read")
        return path.read_bytes()
    except OSError as error:
        raise MapflowError(f"{path} cannot be read: {error.strerror}") from error


def _mistake(error: Exception, data: bytes) -> str:
    """In the words of Python's own parser where the text is not JSON, else field and value."""
    try:
        content = json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as wrong:
        return str(wrong)
    return _wrong_type(error, content)


def _wrong_type(error: Exception, content: Any) -> str:
    """msgspec's reason in words, with the field and its value."""
    reason, _, place = str(error).rstrip("`").partition(" - at `$")
    if not place:
        return "half of a surrogate pair" if "truncated" in reason else reason
    known = place.partition("[...]")[0]  # msgspec names no key of a mapping
    for name, number in re.findall(r"\.([^.\[]+)|\[(\d+)\]", known):
        content = content[int(number) if number else name]
    reason = re.sub("`([^`]+)`", lambda match: _in_words(match[1]), reason)
    field = known.removeprefix(".") or "the content"
    return f"{field} is {quoted(content)}: {reason[:1].lower()}{reason[1:]}"


def _in_words(types: str) -> str:
    return " or ".join(_PLAIN.get(one, one) for one in types.split(" | "))


_PLAIN = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
_PLAIN |= {"array": "a list", "object": "a mapping"}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def sha256(paths: Iterable[Path], advance: Callable[[int], None] | None = None) -> str:
    """SHA-256 (hexadecimal) of the files' contents in order, as `cat PATHS | sha256sum` prints.

    `advance` is told the bytes that have just been read.
    """
    running = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                running.update(block)
                if advance is not None:
                    advance(len(block))
    return running.hexdigest()


def write_file(path: Path, content: str | bytes) -> None:
    """Writes the whole file or leaves what was there; text as UTF-8.

    A symbolic link is followed and stays. A device or pipe is written to, not replaced. The folder
    must exist. Raises MapflowError, naming the file, if it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        target = path.resolve()
        if target.is_file() or not target.exists():
            _replace(target, data)
        else:
            with target.open("wb") as stream:
                stream.write(data)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        reason = "its folder does not exist" if isinstance(error, FileNotFoundError) else None
        reason = reason or getattr(error, "strerror", None) or error
        raise MapflowError(f"{quoted(str(path), 300)} cannot be written: {reason}") from error


def file_name(text: str) -> str:
    """A file name for a question or an intervention.

    Special characters are replaced, also the comma, which would end an argument of lmms-eval's; a
    digest then keeps names apart.
    """
    plain = re.sub(r"[^A-Za-z0-9.@=+-]+", "_", text)[:80].strip(".")
    if plain and plain == text:
        return plain
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return f"{plain}-{digest[:8]}"


_OF_RUNS = ("manifest.json", "asked.json")
"""Files of a run's folder beside its records."""


def check_writable(path: Path, inputs: Iterable[str] = ()) -> None:
    """Refuses, before long work, an output that cannot be written or that would destroy answers.

    inputs: files and folders that the command reads.

    Raises MapflowError, naming the file, if it is a folder, an input, or an existing file of
    records or of a run, and if its folder does not exist.
    """
    reason = ""
    if path.is_dir():
        reason = "it is a folder"
    elif not path.absolute().parent.is_dir():
        reason = "its folder does not exist"
    elif path.is_file() and any(Path(one).is_file() and path.samefile(one) for one in inputs):
        reason = "it is also an input; choose another file"
    elif path.is_file() and (path.suffix == ".jsonl" or path.name in _OF_RUNS):
        reason = "it is there already and may hold the answers of a run; choose another file"
    if reason:
        raise MapflowError(f"{quoted(str(path), 300)} cannot be written: {reason}")


def check_figure(path: Path) -> None:
    """`check_writable` of a figure; also refuses the suffix of another format."""
    check_writable(path)
    if path.suffix and path.suffix.lower() not in FIGURE_SUFFIXES:
        known = ", ".join(FIGURE_SUFFIXES)
        raise MapflowError(
            f"figure {quoted(str(path), 300)}: {quoted(path.suffix)} is not one of {known};"
            " all three are written"
        )


def _replace(target: Path, data: bytes) -> None:
    """Writes a new file beside `target` and renames it; the permissions of `target` stay."""
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    part = target.with_name(f".mapflow-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        # Never through a link that another user may have put there.
        opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        with os.fdopen(opened, "wb") as stream:
            stream.write(data)
            if mode is not None:
                os.fchmod(stream.fileno(), mode)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


LARGEST_YAML = 1 << 20
"""Bytes. Settings files are a thousand times smaller."""


def read_yaml(path: Path, *, text_only: bool = False) -> Any:
    """The contents of a YAML file; with `text_only` every scalar stays text ("6", "on", "null").

    Raises MapflowError, naming file and line, for a file that cannot be read, is larger than
    `LARGEST_YAML` or is not YAML, for duplicate keys and for aliases (`*name`).
    """
    where = repr(str(path))
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        with path.open("rb") as stream:
            content = stream.read(LARGEST_YAML + 1)
    except (OSError, ValueError) as error:
        raise MapflowError(
            f"{where} cannot be read: {getattr(error, 'strerror', error)}"
        ) from error
    if len(content) > LARGEST_YAML:
        raise MapflowError(
            f"{where} has more than {LARGEST_YAML:,} bytes, too many for a file of settings"
        )
    try:
        return parse_yaml(content.decode(), where, text_only=text_only)
    except UnicodeDecodeError as error:
        raise MapflowError(f"{where} cannot be read, it is not YAML: {error}") from error


def parse_yaml(content: str, where: str, *, text_only: bool = False) -> Any:
    """`read_yaml` for text in memory; `where` names it in errors."""
    try:
        return yaml.load(content, Loader=_TextLoader if text_only else _SafeLoader)
    except _Refused as error:
        raise MapflowError(f"{where}: {error}") from None
    except (yaml.YAMLError, *_BY_WRONG_TAGS, RecursionError) as error:
        raise MapflowError(
            f"{where} cannot be read, it is not YAML: {' '.join(str(error).split())}"
        ) from error


# `!!bool x`, `!!int ''`, `!!timestamp x` and their kin
_BY_WRONG_TAGS = (
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    AssertionError,
)


class _Refused(ValueError):
    """Valid YAML that is not accepted here."""


class _Strict:
    """Refuses aliases and duplicate keys; mixed into both loaders."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # type: ignore[attr-defined]
            event = self.peek_event()  # type: ignore[attr-defined]
            raise _Refused(
                f"line {event.start_mark.line + 1}: alias *{event.anchor} is refused; write it out"
            )
        return super().compose_node(parent, index)  # type: ignore[misc]

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)  # type: ignore[misc]
        if re.search("[\ud800-\udfff]", node.value):
            raise _Refused(f"line {node.start_mark.line + 1}: half of a surrogate pair")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _Refused(
                        f"line {key.start_mark.line + 1}: key {key.value!r} is there twice"
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)  # type: ignore[misc]


class _SafeLoader(_Strict, yaml.SafeLoader):
    """Text, numbers, lists, mappings."""


class _TextLoader(_Strict, yaml.BaseLoader):
    """Text, lists and mappings only."""
