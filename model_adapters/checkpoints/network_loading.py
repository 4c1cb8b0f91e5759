"""Loads safetensors into a network without a second copy of the weights.

The network is built with empty parameters. Each tensor then goes from its memory-mapped file to its
parameter, in the requested precision and on the requested device. Names must agree exactly: missing
and unexpected tensors are errors that name them. A family gives the prefixes that differ between
file and network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from mapflow.model_adapters.checkpoints.declared import check_dtype
from mapflow.model_adapters.checkpoints.folder import PRECISIONS, some
from mapflow.model_adapters.progress import advance
from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.processes import processes

Renames = Sequence[tuple[str, str]]
Network = TypeVar("Network", bound=nn.Module)

# Tables that old versions of transformers saved and new versions compute.
DERIVED = (".position_ids", ".rotary_emb.inv_freq")

STORED = ("F32", "BF16", "F16", "F64")
"""The number formats of safetensors that weights may have.

Integers, booleans, eight-bit and complex numbers convert to floats without an error, but they are
not the weights: quantized ones lack their scales, complex ones lose their imaginary part.
"""

SAMPLE = 4096
"""Numbers of the token embeddings whose magnitudes are looked at."""


@runtime_checkable
class Weights(Protocol):
    """Named tensors that are read on request; `shapes` is known without reading any."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> Tensor: ...


class SafetensorsWeights:
    """The memory-mapped tensors of safetensors files, under the network's names.

    Args:
        files: all files of the checkpoint.
        renames: pairs (checkpoint prefix, network prefix).
        any_format: endings of the names whose tensors are not weights, such as counters.

    Raises MapflowError for a file that is damaged or truncated, and for a weight in a number format
    that is not in `STORED`.
    """

    def __init__(
        self,
        files: Iterable[Path],
        renames: Renames = (),
        any_format: tuple[str, ...] = DERIVED,
    ) -> None:
        self._places: dict[str, tuple[Any, str]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            try:
                # Not closed on purpose: tensors read from the map are views of it.
                handle = safe_open(file, framework="pt", device="cpu")
            except (SafetensorError, OSError) as error:
                raise MapflowError(
                    f"{file} is not a complete safetensors file ({error}); copy or download it"
                    " again"
                ) from error
            for key in handle.keys():  # noqa: SIM118 (a handle cannot be iterated over)
                name = rename(key, renames)
                if name in self._places:
                    raise MapflowError(
                        f"{file} holds {key!r}, which another file of the checkpoint holds too"
                    )
                stored = handle.get_slice(key)
                if stored.get_dtype() not in STORED and not key.endswith(any_format):
                    raise MapflowError(
                        f"{file} holds {key} as {stored.get_dtype()}; weights must be one of"
                        f" {', '.join(STORED)}: use a checkpoint that is not quantized"
                    )
                self._places[name] = (handle, key)
                self._shapes[name] = tuple(stored.get_shape())

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def read(self, name: str) -> Tensor:
        handle, key = self._places[name]
        return handle.get_tensor(key)


def rename(key: str, renames: Renames) -> str:
    """`key` with the first matching prefix replaced."""
    for old, new in renames:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def resolve_dtype(
    dtype: str | torch.dtype, config: Mapping[str, Any], device_map: str | Mapping[str, Any]
) -> torch.dtype:
    """The precision to load in: "float32", "bfloat16", "float16", "float64", or "auto".

    "auto" is the precision of the checkpoint according to config.json, but float32 if the whole
    network is on the CPU, where half precision is slow. Raises MapflowError for any other name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        on_cpu = device_map == "cpu" or (device_map == "auto" and not torch.cuda.is_available())
        dtype = str(config.get("torch_dtype") or config.get("dtype")).removeprefix("torch.")
        if on_cpu or dtype not in PRECISIONS:
            return torch.float32
    check_dtype(dtype)
    return getattr(torch, dtype)


def load_network(
    build: Callable[[], Network],
    weights: Weights,
    *,
    dtype: torch.dtype,
    device_map: str | Mapping[str, Any] = "cpu",
    no_split: Sequence[str] = (),
) -> Network:
    """Builds a network and loads its weights, in evaluation mode and without gradients.

    Args:
        dtype: precision of floating-point weights; computed tables keep theirs.
        device_map: one device ("cpu", "cuda:0"), "auto" for all GPUs, or module prefix → device.
        no_split: class names of modules that "auto" keeps on one device.

    Raises MapflowError naming missing tensors, unexpected tensors, different shapes, two different
    tensors for parameters that config.json ties, and as `check_numbers`.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    for module in network.modules():
        if isinstance(module, PreTrainedModel):
            module.tie_weights()  # building without memory separates tied parameters
    slots = network.state_dict(keep_vars=True)
    source_of = _match(slots, weights)
    placement = _placement(network, device_map, dtype, no_split)
    placed: dict[int, Tensor] = {}
    for name, slot in slots.items():
        # Tied parameters are one object with several names: read once, then shared.
        if id(slot) not in placed:
            value = weights.read(source_of[name])
            advance(value.nbytes)
            target = dtype if value.is_floating_point() else value.dtype
            placed[id(slot)] = _like(
                slot, value.to(device=device_of(name, placement), dtype=target)
            )
        elif name in weights.shapes:
            check_tied(weights, source_of[name], name)
        _assign(network, name, placed[id(slot)])
    check_numbers(network)
    network.eval()
    if set(placement) == {""}:
        return network.to(placement[""])
    from accelerate import dispatch_model

    return cast(Network, dispatch_model(network, dict(placement)))


def check_numbers(network: nn.Module) -> None:
    """Raises MapflowError for weights that are not finite, or not in the format that the file says.

    float16 and bfloat16 have the same size, so a file can call one the other. Read so, the middle
    half of all magnitudes spans a factor of thousands, or no number is much below the median; of
    normally distributed numbers it spans 3.6, and one in nine is below a fifth of the median. The
    embeddings of tokens show it.
    """
    for name, weights in network.named_parameters():
        if not weights.is_meta and not _finite(weights):
            dtype = str(weights.dtype).removeprefix("torch.")
            raise MapflowError(
                f"the checkpoint's {name} holds NaN or infinity in {dtype}: its file is damaged, or"
                " its numbers need another dtype, such as float32"
            )
    tables = [one.weight for one in network.modules() if isinstance(one, nn.Embedding)]
    table = max((one for one in tables if not one.is_meta), key=Tensor.numel, default=None)
    if table is not None and table.numel() >= SAMPLE:
        sample = table.detach().flatten()[:: table.numel() // SAMPLE].abs().double()
        rest = sample[sample > 0] if sample.any() else sample
        low, median, high = rest.quantile(rest.new_tensor([0.25, 0.5, 0.75]))
        if high > 1000 * low or (sample < median / 5).double().mean() < 0.01:
            raise MapflowError(
                "the checkpoint's token embeddings are no numbers of a network (half of them from"
                f" {low:.1e} to {high:.1e}): its file states another number format than it holds"
            )


def _finite(weights: Tensor) -> bool:
    """A sum takes a tenth of the time and no memory. It may also overflow, so then all count."""
    wide = torch.promote_types(weights.dtype, torch.float32)
    return bool(weights.sum(dtype=wide).isfinite()) or bool(weights.isfinite().all())


def check_tied(weights: Weights, name: str, other: str) -> None:
    """Raises MapflowError if the tensors of two tied parameters differ: only one would be used."""
    if not torch.equal(weights.read(name), weights.read(other)):
        raise MapflowError(
            f"config.json ties {other} to {name} (tie_word_embeddings), but their tensors differ:"
            " one of the two is not of this checkpoint"
        )


def _match(slots: Mapping[str, Tensor], weights: Weights) -> dict[str, str]:
    """Parameter name → name in the file: its own, or that of a parameter tied to it."""
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
        told = "; ".join(
            f"{len(names)} {kind}: {some(names)}" for kind, names in problems.items() if names
        )
        raise MapflowError(f"the checkpoint's tensors do not fit its config.json: {told}")
    return {name: tied[id(slot)] for name, slot in slots.items()}


def _placement(
    network: nn.Module,
    device_map: str | Mapping[str, Any],
    dtype: torch.dtype,
    no_split: Sequence[str],
) -> Mapping[str, Any]:
    """Module prefix → device."""
    if not isinstance(device_map, str):
        return dict(device_map)
    if device_map != "auto":
        return {"": _device(device_map)}
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    memory = get_balanced_memory(network, dtype=dtype, no_split_module_classes=list(no_split))
    inferred = infer_auto_device_map(network, memory, list(no_split), dtype=dtype)
    if "disk" in inferred.values():
        raise MapflowError(
            "the checkpoint does not fit into GPU and main memory; use a smaller dtype"
        )
    devices = set(inferred.values())
    return {"": devices.pop()} if len(devices) == 1 else inferred


def default_device() -> str:
    """The GPU of this process if there is one, else the CPU.

    Processes that see one GPU each, as SLURM's --gpus-per-task has it, all call it 0.
    """
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{processes().local_rank % torch.cuda.device_count()}"


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MapflowError(f"device {name!r} is unknown: use cpu, cuda, cuda:N or auto") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MapflowError(
            f"device {name!r} does not exist: this machine has {torch.cuda.device_count()} GPUs"
        )
    return device


def device_of(name: str, placement: Mapping[str, Any]) -> Any:
    """The device of the longest module prefix of `name`. Raises MapflowError if there is none."""
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
