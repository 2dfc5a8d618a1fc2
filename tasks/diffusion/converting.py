"""Makes pipelines of single-file checkpoints, by diffusers' own converters."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import SingleFileComponentError

from tasks.diffusion.pipelines import hush

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # by the file format's words


def convert(file: Path, config: Path, to: Path, held: Collection[str]) -> None:
    """Save a single-file checkpoint as a pipeline's folder, by the configs and tokenizers of another one.

    `held` are the dtypes of the file's tensors, such as "F16": weights keep their precision. Raises ValueError if the
    checkpoint does not fit the configs, or is quantized.
    """
    hush()
    name = json.loads((config / "model_index.json").read_text("utf-8"))["_class_name"]
    kind = getattr(diffusers, name, None)
    if kind is None or not hasattr(kind, "from_single_file"):
        raise ValueError(f"diffusers reads no single-file checkpoints of {name}; give the model as a diffusers folder")
    floats = sorted(set(held) & set(DTYPES))  # others, such as F64, are schedules that no pipeline reads
    if unknown := sorted(word for word in held if word.startswith(("F8", "F6", "F4"))):
        raise ValueError(
            f"{file} holds {', '.join(unknown)}; expected {', '.join(DTYPES)}: give one that is not quantized"
        )
    checker = {"safety_checker": None, "requires_safety_checker": False}
    known = inspect.signature(kind.__init__).parameters
    options = {key: value for key, value in checker.items() if key in known}
    dtype = DTYPES[floats[0]] if len(floats) == 1 else torch.float32
    try:
        pipe = kind.from_single_file(str(file), config=str(config), dtype=dtype, local_files_only=True, **options)
    except NotImplementedError as error:  # torch's, for a module whose weights stayed without data
        raise ValueError(f"{file} lacks some of the weights that the configs of {config} ask for") from error
    except (ValueError, KeyError, RuntimeError, SingleFileComponentError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} does not fit the configs of {config}: {reason}") from error
    modules = {name: module for name, module in pipe.components.items() if isinstance(module, torch.nn.Module)}
    for component, module in modules.items():
        if empty := [name for name, tensor in module.named_parameters() if tensor.is_meta]:
            raise ValueError(f"{file} has no weights for {component}.{empty[0]}, which the configs of {config} ask for")
        _narrow(module, [DTYPES[word] for word in floats if word != "F32"] if len(floats) > 1 else [])
    pipe.save_pretrained(to, safe_serialization=True)


def _narrow(module: Any, dtypes: list[torch.dtype]) -> None:
    """A module of a file of several precisions in the one that its weights had: the first that changes none of them."""
    for dtype in dtypes:
        if all(torch.equal(tensor, tensor.to(dtype).to(tensor.dtype)) for tensor in module.state_dict().values()):
            module.to(dtype)
            return
