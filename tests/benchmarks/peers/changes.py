"""What a way of erasing changes in a pipeline: tensors, in place while a block runs, then gone bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save


@dataclass(frozen=True)
class Change:
    """Tensors in place of a pipeline's own, by "<component>.<qualified name>" as in its state dict."""

    tensors: Mapping[str, torch.Tensor]

    @property
    def bytes(self) -> int:
        """Bytes of the smallest artifact that holds the change: here a safetensors file of the tensors."""
        return len(save({name: tensor.contiguous() for name, tensor in self.tensors.items()}))

    @contextmanager
    def on(self, pipe: Any) -> Iterator[Any]:
        """The pipeline with the change while the block runs; then its own tensors, which were only put aside.

        Raises ValueError if a tensor fits no parameter of the pipeline; nothing is changed then.
        """
        parameters = {name: parameter(pipe, name) for name in self.tensors}
        for name, tensor in self.tensors.items():
            if tensor.shape != parameters[name].shape:
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, but the pipeline's {tuple(parameters[name].shape)}"
                )
        own = {name: found.data for name, found in parameters.items()}
        try:
            for name, tensor in self.tensors.items():
                parameters[name].data = tensor.to(own[name].device, own[name].dtype)
            yield pipe
        finally:
            for name, data in own.items():
                parameters[name].data = data


def parameter(pipe: Any, name: str) -> torch.nn.Parameter:
    """The parameter "<component>.<qualified name>". Raises ValueError where the pipeline has none of that name."""
    component, _, rest = name.partition(".")
    try:
        return torch.nn.Module.get_parameter(getattr(pipe, component), rest)
    except AttributeError:
        raise ValueError(f"this pipeline has no parameter {name}: the change is of another model") from None
