"""What people see of an observation in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.showing import out


def print_observed(outcome: Mapping[str, Any]) -> None:
    """Where the stores are, and how to open one."""
    out.print(
        f"{outcome['concept']}: {outcome['tier']} activations of {len(outcome['sites'])} sites at "
        f"{len(outcome['steps'])} steps; {outcome['observed']} prompts were observed now",
        highlight=False,
        soft_wrap=True,
    )
    for role, url in outcome["stores"].items():
        out.print(f"{role:9} {url}", highlight=False, soft_wrap=True)
    url = next(iter(outcome["stores"].values()))
    out.print(f'open it   from storage.opening import open_tier; open_tier("{url}")', highlight=False, soft_wrap=True)
