"""A concept's words, where they stand in its prompts, and prompts as a text encoder sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tasks.concepts.catalog import Catalog


def words_of(catalog: Catalog, slug: str) -> str:
    """What the catalog's prompts call a concept: its words, or its kind's at its slug. Raises ValueError if none."""
    entry = next((entry for entry in catalog.file.concepts if entry.slug == slug), None)
    if entry is None:
        raise ValueError(f"no concept {slug!r} in catalog {catalog.name}")
    words = entry.words or catalog.file.words.get(entry.kind, {}).get(slug)
    if not words:
        raise ValueError(f"concept {slug} has no words in catalog {catalog.name}; a peer needs some to erase")
    return words


def other_texts(pipe: Any, catalog: Catalog, slug: str) -> list[str]:
    """What must stay as it is: all texts that the catalog's concepts are captured with, and the words of each kind, but
    for those that say the concept's words; and the empty text. In a fixed order, each once.
    """
    captured = [p.text for concept in catalog for role in (concept.reference, concept.target) for p in role.prompts]
    kinds = {concept.kind for concept in catalog}
    spoken = [text for kind in sorted(kinds) for text in catalog.file.words.get(kind, {}).values()]
    words = words_of(catalog, slug)
    return [""] + [text for text in sorted({*captured, *spoken} - {""}) if last_token(pipe, text, words) is None]


def tokens(pipe: Any, text: str) -> list[int]:
    """A text's tokens, with the start and the end but without padding."""
    return list(pipe.tokenizer(text).input_ids)


def last_token(pipe: Any, text: str, words: str) -> int | None:
    """The position of the last token of the words in a text, the last time that they are there; None if they are not.

    The first word is left out if it is an article: "a fox" is in "the fox" too.
    """
    wanted = pipe.tokenizer(without_article(words), add_special_tokens=False).input_ids
    found = tokens(pipe, text)
    starts = [i for i in range(len(found) - len(wanted) + 1) if found[i : i + len(wanted)] == wanted]
    return starts[-1] + len(wanted) - 1 if starts else None


def without_article(words: str) -> str:
    """The words without "a", "an" or "the" before them.

    >>> without_article("a fox"), without_article("Van Gogh")
    ('fox', 'Van Gogh')
    """
    first, _, rest = words.partition(" ")
    return rest if rest and first.lower() in ("a", "an", "the") else words


@torch.no_grad()
def embed(pipe: Any, texts: Sequence[str]) -> torch.Tensor:
    """What cross-attention gets of each text, padding included: [text, token, width]."""
    ids = pipe.tokenizer(
        list(texts), padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    found: torch.Tensor = pipe.text_encoder(ids.to(pipe.text_encoder.device))[0]
    return found
