"""Checkpoint folders: which weight files they hold, and streaming those into a network without a second copy.

A network is built with empty parameters, then every tensor goes from its memory-mapped file straight to its place,
in the precision and on the device that were asked for. Names must fit exactly: a tensor too many or too few is an
error that says which. Only safetensors are read; nothing is unpickled and nothing is fetched.

Knows no family: what a tensor is called in the file and what in the network is a list of prefixes that the family gives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mapflow.results.errors import MapflowError

Renames = Sequence[tuple[str, str]]
Network = TypeVar("Network", bound=nn.Module)

FAMILY_OF = {
    "PllavaForConditionalGeneration": "llava",
    "InternVLChatModel": "internvl",
    "Videollama3Qwen2ForCausalLM": "videollama3",
    "VideoLlama3ForConditionalGeneration": "videollama3",
}
"""The first entry of a config.json's `architectures` → the family that loads it."""

# Tables that old versions of transformers saved and new ones compute.
DERIVED = (".position_ids", ".rotary_emb.inv_freq")


class Weights(Protocol):
    """Named tensors, read only when asked for. `shapes` is known without reading any."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> Tensor: ...


class SafetensorsWeights:
    """The tensors of one or more safetensors files, memory-mapped, under the network's names.

    Raises MapflowError for a file that is damaged or truncated.
    """

    def __init__(self, files: Iterable[Path], renames: Renames = ()) -> None:
        self._places: dict[str, tuple[Any, str]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            try:
                # Not closed on purpose: tensors read from the map are views of it.
                handle = safe_open(file, framework="pt", device="cpu")
            except (SafetensorError, OSError) as error:
                raise MapflowError(
                    f"{file} is not a complete safetensors file ({error}); copy or download it again"
                ) from error
            for key in handle.keys():  # noqa: SIM118 (a handle is no mapping)
                name = rename(key, renames)
                if name in self._places:
                    raise MapflowError(
                        f"{file} holds {key!r}, which another file of the checkpoint holds too"
                    )
                self._places[name] = (handle, key)
                self._shapes[name] = tuple(handle.get_slice(key).get_shape())

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def read(self, name: str) -> Tensor:
        handle, key = self._places[name]
        return handle.get_tensor(key)


def rename(key: str, renames: Renames) -> str:
    """`key` with the first matching prefix exchanged."""
    for old, new in renames:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def read_config(folder: Path, family: str) -> dict[str, Any]:
    """The folder's config.json, which must describe a model of `family`.

    Raises MapflowError for a missing or unreadable file and, saying which family fits, for another family's.
    """
    config = read_json(folder / "config.json")
    architecture = (config.get("architectures") or ["(none)"])[0]
    found = FAMILY_OF.get(architecture)
    if found == family:
        return config
    advice = (
        f"load it with --model mapflow_{found}"
        if found
        else f"known are {', '.join(name for name, of in FAMILY_OF.items() if of == family)}"
    )
    raise MapflowError(f"{folder} holds a {architecture!r}, which is no {family} checkpoint: {advice}")


def read_json(file: Path) -> dict[str, Any]:
    """Contents of a JSON object file. Raises MapflowError where it is missing or broken."""
    if not file.parent.is_dir():
        raise MapflowError(f"checkpoint folder {file.parent} does not exist")
    if not file.is_file():
        raise MapflowError(f"checkpoint folder {file.parent} has no {file.name}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MapflowError(f"{file} is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise MapflowError(f"{file} must hold a JSON object, not a {type(content).__name__}")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a full checkpoint: one, or the shards that the index names.

    Raises MapflowError where there are none, where shards are missing, or where only pickled weights exist.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise MapflowError(missing_weights(folder, single.name))
    shards = [folder / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent or not shards:
        raise MapflowError(f"{index} names {some(absent) if absent else 'no shards'}, absent from the folder")
    return shards


def missing_weights(folder: Path, wanted: str) -> str:
    """Why a folder without the file `wanted` cannot be loaded."""
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    if pickled:
        return (
            f"{folder} has only pickled weights ({some(pickled)}), which are never loaded;"
            " convert them with save_pretrained(..., safe_serialization=True)"
        )
    return f"checkpoint folder {folder} has no {wanted}"


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over the files' contents, one after another: what `cat FILES | sha256sum` prints."""
    running = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                running.update(chunk)
    return running.hexdigest()


def load_network(
    build: Callable[[], Network],
    weights: Weights,
    *,
    dtype: torch.dtype,
    device_map: str | Mapping[str, Any] = "cpu",
    no_split: Sequence[str] = (),
) -> Network:
    """`build()` with the weights in place, in evaluation mode and without gradients.

    Args:
        dtype: precision of all floating-point weights; computed tables (rotary frequencies) keep theirs.
        device_map: one device ("cpu", "cuda:0"), "auto" to spread over the GPUs, or module prefix → device.
        no_split: class names of modules that "auto" keeps on one device.

    Raises MapflowError naming missing and unexpected tensors and shapes that differ.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    slots = network.state_dict(keep_vars=True)
    source_of = _match(slots, weights)
    placement = _placement(network, device_map, dtype, no_split)
    placed: dict[int, Tensor] = {}
    for name, slot in slots.items():
        # Tied parameters are one object under several names: it is read once and shared again.
        if id(slot) not in placed:
            value = weights.read(source_of[name])
            target = dtype if value.is_floating_point() else value.dtype
            placed[id(slot)] = _like(slot, value.to(device=device_of(name, placement), dtype=target))
        _assign(network, name, placed[id(slot)])
    network.eval()
    if set(placement) == {""}:
        return network.to(placement[""])
    from accelerate import dispatch_model

    return cast(Network, dispatch_model(network, dict(placement)))


def _match(slots: Mapping[str, Tensor], weights: Weights) -> dict[str, str]:
    """For every parameter name, the name to read it by: its own, or that of a parameter tied to it."""
    known = weights.shapes
    tied: dict[int, str] = {}
    for name, slot in slots.items():
        if name in known:
            tied.setdefault(id(slot), name)
    missing = [name for name, slot in slots.items() if id(slot) not in tied]
    unexpected = [name for name in known if name not in slots and not name.endswith(DERIVED)]
    differing = [
        f"{name} (is {known[name]}, should be {tuple(slot.shape)})"
        for name, slot in slots.items()
        if name in known and known[name] != tuple(slot.shape)
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
    if any(problems.values()):
        told = "; ".join(f"{len(names)} {kind}: {some(names)}" for kind, names in problems.items() if names)
        raise MapflowError(f"the checkpoint's tensors do not fit its config.json: {told}")
    return {name: tied[id(slot)] for name, slot in slots.items()}


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first few, and a sign that there are more."""
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")


def _placement(
    network: nn.Module, device_map: str | Mapping[str, Any], dtype: torch.dtype, no_split: Sequence[str]
) -> Mapping[str, Any]:
    """Module prefix → device."""
    if not isinstance(device_map, str):
        return dict(device_map)
    if device_map != "auto":
        return {"": torch.device(device_map)}
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    memory = get_balanced_memory(network, dtype=dtype, no_split_module_classes=list(no_split))
    inferred = infer_auto_device_map(network, memory, list(no_split), dtype=dtype)
    if "disk" in inferred.values():
        raise MapflowError("the checkpoint does not fit into GPU and main memory; use a smaller dtype")
    devices = set(inferred.values())
    return {"": devices.pop()} if len(devices) == 1 else inferred


def device_of(name: str, placement: Mapping[str, Any]) -> Any:
    """The device of the longest module prefix that holds `name`. Raises MapflowError where none does."""
    prefix = name
    while prefix not in placement:
        if not prefix:
            raise MapflowError(f"device_map gives no device for {name!r}")
        prefix = prefix.rpartition(".")[0]
    return placement[prefix]


def _like(slot: Tensor, value: Tensor) -> Tensor:
    return nn.Parameter(value, requires_grad=False) if isinstance(slot, nn.Parameter) else value


def _assign(network: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = network.get_submodule(path)
    if isinstance(value, nn.Parameter):
        module._parameters[leaf] = value
    else:
        module._buffers[leaf] = value
