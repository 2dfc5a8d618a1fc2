"""A concept of the user's own, written into a catalog: by a name and a kind's recipe, or by two lists of prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tasks.concepts.builtin import builtin_names
from tasks.concepts.catalog import parse_catalog
from tasks.concepts.toml_catalog import builtin

DEFAULTS = """[capture]
steps = 50
window = 20       # denoising stops there
guidance = 7.5

[prune]
sparsity = "0.01"
t_hat = 10
vote_share = 0.0  # the union over steps, as in the paper
"""


def with_concept(
    text: str | None,
    name: str,
    slug: str,
    kind: str,
    words: str | None = None,
    reference: Sequence[str] | None = None,
    target: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> str:
    """A catalog's TOML text with one concept more; None begins one, which extends the built-in catalog of the kind.

    `name` is the file's, for messages. Raises CatalogError with everything that is wrong, if the text is no sound
    catalog or is none with the concept; ValueError in one sentence for a kind that has neither recipe nor prompts.
    """
    if text is None and reference is None and _base(kind) is None:
        known = ", ".join(kind for name in builtin_names() for kind in builtin(name).recipes)
        raise ValueError(f"kind {kind!r} has no recipe; choose one of {known}, or give two lists of prompts")
    entry = {"slug": slug, "kind": kind, "words": words, "seeds": seeds, "reference": reference, "target": target}
    rows = [f"{key} = {_toml(value)}" for key, value in entry.items() if value is not None]
    whole = "\n".join([_begun(kind) if text is None else text.rstrip() + "\n", "[[concepts]]", *rows]) + "\n"
    parse_catalog(whole.encode(), name)
    return whole


def _base(kind: str) -> str | None:
    """The built-in catalog that has a recipe for the kind."""
    return next((name for name in builtin_names() if kind in builtin(name).recipes), None)


def _begun(kind: str) -> str:
    base = _base(kind)
    if base is None:
        return f"format = 1\n\n{DEFAULTS}"
    return f'format = 1\nextends = ["{base}"]  # its recipe for this kind, its words and settings\n'


def _toml(value: str | Sequence[str] | Sequence[int]) -> str:
    """A value as TOML writes it; its strings are JSON's, but that they may not hold a raw DEL."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if all(isinstance(item, int) for item in value):
        return json.dumps(list(value))
    return "[\n" + "".join(f"  {_toml(str(item))},\n" for item in value) + "]"
