"""Specs from a catalog's tables and a request's options: typed, checked, and refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from flows.config import Common
from tasks.concepts.catalog import Catalog
from tasks.diffusion.spec import CaptureSpec, PruneSpec, parse_sparsity
from tasks.naming import words

Spec = TypeVar("Spec", CaptureSpec, PruneSpec)

MAX_CALLS_A_STEP = 2  # denoiser calls that a scheduler makes for a step, at most (Heun)


def capture_spec(request: Common, catalog: Catalog) -> CaptureSpec:
    """The catalog's [capture] with what the request sets instead."""
    given = {"steps": request.steps, "window": request.window, "guidance": request.guidance,
             "height": request.size, "width": request.size, "kinds": words(request.kinds),
             "padding": request.padding}  # fmt: skip
    values = {**catalog.file.capture, **{key: value for key, value in given.items() if value is not None}}
    spec = _checked(f"[capture] of catalog {request.catalog_url}", values, given, CaptureSpec)
    if spec.window is not None and spec.window > spec.steps * MAX_CALLS_A_STEP:
        raise ValueError(f"window is {spec.window}, but {spec.steps} steps are run; give a smaller --window")
    for side in (spec.height, spec.width):
        if side is not None and (side < 8 or side % 8):
            raise ValueError(f"size is {side} pixels; it must be a multiple of 8, as latents are")
    return spec


def prune_spec(request: Common, defaults: Mapping[str, Any]) -> PruneSpec:
    """The defaults with what the request sets instead."""
    given = {key: getattr(request, key) for key in ("sparsity", "t_hat", "vote_share", "branch", "prompts")}
    given |= {key: words(getattr(request, key)) for key in ("kinds", "include", "exclude")}
    values = {**defaults, **{key: value for key, value in given.items() if value is not None}}
    if missing := {"sparsity", "t_hat"} - set(values):
        raise ValueError(f"neither the catalog nor an option sets {' or '.join(sorted(missing))}; give it")
    place = f"[prune] of catalog {request.catalog_url}"
    return _checked(place, {**values, "sparsity": parse_sparsity(values["sparsity"])}, given, PruneSpec)


def check_branch(prune: PruneSpec, captured: Sequence[str]) -> None:
    """Raises ValueError if the branch that counts is not among the captured ones."""
    if prune.branch not in ("both", *captured):
        raise ValueError(f"branch {prune.branch} is not run at this guidance; choose both or {' or '.join(captured)}")


def check_kinds(request: Common, prune: PruneSpec, captured: Sequence[str]) -> None:
    """Raises ValueError if the catalog prunes site kinds that it does not capture."""
    if not set(prune.kinds) <= set(captured):
        raise ValueError(
            f"[prune] of catalog {request.catalog_url}: kinds are {', '.join(prune.kinds) or 'none'}, "
            f"but {', '.join(captured)} sites are captured; let [capture] have them too"
        )


def _checked(place: str, values: Mapping[str, Any], given: Mapping[str, Any], spec: type[Spec]) -> Spec:
    """A spec of values from a file, whose types are anything: 4 becomes 4.0 where that is meant, so that digests agree.

    `place` is where they stand, unless the request gives them.
    Raises ValueError in one sentence.
    """
    known = [field.name for field in fields(spec)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{place} has {', '.join(unknown)}, which is unknown; known are {', '.join(known)}")
    try:
        return TypeAdapter(spec).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # the spec's own sentence
            raise ValueError(str(first["ctx"]["error"])) from None
        name = ".".join(map(str, first["loc"]))
        where = "" if given.get(name) is not None else f"{place}: "
        raise ValueError(f"{where}{name} is {str(first['input'])!r}: {first['msg']}") from None
