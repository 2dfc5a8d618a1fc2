"""The command observe: a closer look at activations than energies give."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer, asked
from tasks.naming import words

Tier = Annotated[
    str, typer.Option("--tier", help="pooled: mean, absmax and share positive over tokens; raw: every token's value.")
]
Sites = Annotated[
    str, typer.Option("--sites", help="Names or patterns, by commas, such as 'unet.mid_block*'; '*' is all.")
]
AtSteps = Annotated[
    str | None, typer.Option("--at-steps", help="Which denoiser calls, from 0, such as 0-4,9. [default: all captured]")
]
Role = Annotated[str | None, typer.Option("--role", help="target, reference or both of its sets. [default: both]")]
MaxBytes = Annotated[
    str | None, typer.Option("--max-bytes", help="Refuse to store more than this. [default: 10GB, of the setting]")
]


def observe(
    concept: o.Concept,
    tier: Tier,
    sites: Sites,
    at_steps: AtSteps = None,
    role: Role = None,
    max_bytes: MaxBytes = None,
    store: o.Store = None,
    catalog: o.CatalogFile = None,
    model: o.Model = None,
    revision: o.Revision = None,
    variant: o.Variant = None,
    device: o.Device = None,
    offload: o.Offload = None,
    slicing: o.Slicing = None,
    dtype: o.Dtype = "float32",
    batch: o.Batch = None,
    steps: o.Steps = None,
    window: o.Window = None,
    guidance: o.Guidance = None,
    size: o.Size = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Keep more of a concept's activations than energies, for chosen sites and steps; the price is said first.

    conceptprune observe fox --tier raw --sites 'unet.mid_block*' --at-steps 0-4. Its prompts are drawn again, as far as
    the last of these steps. Open what it prints with storage.opening.open_tier, or with any Zarr reader.
    """
    options = dict(
        concept=concept, tier=tier, sites=words(sites), at_steps=at_steps, role=role, max_bytes=max_bytes,
        store=store, catalog=catalog, model=model, revision=revision, variant=variant, device=device, offload=offload,
        slicing=slicing, dtype=dtype, batch=batch, steps=steps, window=window, guidance=guidance, size=size,
    )  # fmt: skip
    from flows import erasing, showing_observed
    from flows.observe_plan import ObserveRequest

    answer(
        lambda: erasing.observe(asked(ObserveRequest, options), no_prefect), as_json, showing_observed.print_observed
    )
