"""What a catalog's file may say: its fields, their types and their bounds."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tasks.concepts.concept import SLUG
from tasks.concepts.prompts import MAX_TEXT
from tasks.diffusion.spec import parse_sparsity

SMALLEST_SPARSITY = Decimal("1e-9")  # below one neuron of any layer


def _check_slug(slug: str) -> str:
    if not SLUG.fullmatch(slug) or len(slug) > 200:
        raise ValueError(
            f"slug {slug[:40]!r} is not made of lower-case letters, digits and single dashes, at most 200 of them"
        )
    return slug


def _check_sparsity(value: Any) -> str:
    """The text of a sparsity: a share or a percentage, as text or as a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('sparsity is neither a number nor text; give a share such as "0.05", or "5%"')
    text = str(value).strip()
    share = parse_sparsity(text[:60])
    if not share.is_finite() or not SMALLEST_SPARSITY <= share <= 1:
        raise ValueError(f"sparsity is {text[:40]}; it must be above 0 and at most 1, such as 0.05 for 5 %")
    return text


def _not_bool(value: Any) -> Any:
    """Pydantic takes True for 1 in a table."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number; give one")
    return value


Slug = Annotated[str, AfterValidator(_check_slug)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
ReferenceText = Annotated[str, Field(max_length=MAX_TEXT)]  # may be empty: a memorised caption against no prompt at all
Source = Annotated[str, Field(min_length=1, max_length=500)]
Seed = Annotated[int, BeforeValidator(_not_bool), Field(ge=0, le=2**31)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=10_000)]
Sparsity = Annotated[str, BeforeValidator(_check_sparsity)]
Steps = Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=10_000)]
VoteShare = Annotated[float, BeforeValidator(_not_bool), Field(ge=0, lt=1, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(_Strict):
    """How a concept of one kind becomes prompts: templates and counts."""

    reference: ReferenceText
    target: Text
    pairs: Count
    concept: list[Text] = []
    others: list[Text] = []
    concept_prompts: Count = 20
    others_prompts: Count = 48
    seed: Seed = 0  # of the first pair; the next has one more
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None  # of the pairs, in their place
    source: Source | None = None  # where the templates' shape and the settings come from
    sparsity: Sparsity | None = None  # this kind's own defaults, where the catalog's do not suit it
    t_hat: Steps | None = None
    vote_share: VoteShare | None = None

    @model_validator(mode="after")
    def _check_seeds(self) -> Recipe:
        if self.seeds is not None and len(self.seeds) != self.pairs:
            raise ValueError(f"seeds has {len(self.seeds)} numbers for {self.pairs} pairs; give one for each")
        return self

    def seed_of(self, pair: int) -> int:
        """The seed of a pair's prompts."""
        return self.seed + pair if self.seeds is None else self.seeds[pair]


class Entry(_Strict):
    """One concept as the file has it."""

    slug: Slug
    kind: Text
    words: Text | None = None  # default: the kind's word list at this slug
    reference: Annotated[list[ReferenceText], Field(min_length=1)] | None = None
    target: Annotated[list[Text], Field(min_length=1)] | None = None
    seed: Seed = 0  # of the first prompt of its own lists; the next has one more
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None  # of each prompt of its own lists, in their place
    sparsity: Sparsity | None = None  # this concept's own defaults: they win over its kind's
    t_hat: Steps | None = None
    vote_share: VoteShare | None = None

    @model_validator(mode="after")
    def _check_seeds(self) -> Entry:
        longest = max(len(self.reference or []), len(self.target or []))
        if self.seeds is not None and len(self.seeds) != longest:
            raise ValueError(f"seeds has {len(self.seeds)} numbers for {longest} prompts of its own; give one for each")
        return self

    def seed_of(self, prompt: int) -> int:
        """The seed of a prompt of its own lists, by its number in either."""
        return self.seed + prompt if self.seeds is None else self.seeds[prompt]


PRUNE_FIELDS = frozenset({"sparsity", "t_hat", "vote_share"})  # what a recipe or a concept may set of [prune]


class Header(_Strict):
    """What stands at the top of a catalog's TOML document."""

    format: Literal[1]
    name: str = "catalog"
    extends: list[str] = []  # built-in catalogs, whose words, recipes and defaults this one has too
    capture: dict[str, Any] = {}
    prune: dict[str, Any] = {}
    tables: list[str] = []  # CSV or Parquet files beside this one, whose rows are concepts too


class WordLists(_Strict):
    """The lists that templates draw from."""

    words: dict[str, dict[str, Text]] = {}  # {list: {label: words}}; a list named like a kind has that kind's concepts


class CatalogFile(Header, WordLists):
    """A catalog's TOML document, its tables' rows among the concepts."""

    recipes: dict[str, Recipe] = {}
    concepts: list[Entry] = Field(min_length=1)


def prune_fields(of: Recipe | Entry | None) -> dict[str, Any]:
    """What a recipe or a concept sets of [prune]."""
    return {} if of is None else of.model_dump(include=set(PRUNE_FIELDS), exclude_none=True)
