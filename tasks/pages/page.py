"""What a page says, as plain values: gathered elsewhere, laid out by the templates, drawn by tasks.pages.graphics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.pages.graphics import StepChart, TradeoffChart


@dataclass(frozen=True)
class Number:
    """A number for people, exact underneath."""

    text: str  # "20 %"; "" where there is none
    value: float | None = None
    interval: str = ""  # "5 to 40"
    low: float | None = None
    high: float | None = None


NOTHING = Number("")


@dataclass(frozen=True)
class Tile:
    """One of the three numbers at the top."""

    label: str
    number: Number
    note: str  # of what, compared with what


@dataclass(frozen=True)
class Picture:
    """An image in a data: URL."""

    url: str
    width: int  # px, as it is embedded
    height: int
    pixelated: bool  # small enough to be enlarged without smoothing


@dataclass(frozen=True)
class Pair:
    """One prompt's image before and after the edit."""

    before: Picture
    after: Picture
    text: str | None  # the prompt; None = its words are not known
    seed: int | None
    slot: int  # its place among the prompts, from 0
    covered: bool = False  # explicit, or it may be: blurred until asked for

    @property
    def name(self) -> str:
        """The prompt and the seed, for captions and for those who hear the page."""
        if self.text is None:
            return f"evaluation prompt {self.slot + 1}"
        return f"“{self.text}”, seed {self.seed}"


@dataclass(frozen=True)
class Gallery:
    """Pairs of one set of prompts."""

    title: str
    compared: str  # what was drawn twice, and how
    pairs: Sequence[Pair]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Measure:
    """One number of an evaluation, before and after."""

    metric: str
    part: str
    group: str  # of labels; "" = all
    before: Number
    after: Number
    change: Number
    n: int
    images: int
    detector: str  # what judged, with its digest and threshold
    compared: str
    url: str  # of the measurement


@dataclass(frozen=True)
class Quick:
    """One number of the look that was taken when the edit was made."""

    what: str
    before: Number
    after: Number
    n: int
    by: str


@dataclass(frozen=True)
class SiteBar:
    """How much of a site is pruned."""

    name: str
    width: int
    weights: int
    pruned: int
    density: Number
    share_of_most: float  # 0 to 1, of the site that loses most


@dataclass(frozen=True)
class SweepRow:
    """A judged point of a sweep."""

    number: int  # its label in the chart
    sparsity: Number
    t_hat: int
    vote_share: Number
    density: Number
    erased: Number
    kept: Number
    concept: str  # the judge's hits before and after, of how many
    others: str
    chosen: bool
    own: bool  # it is this page's edit


@dataclass(frozen=True)
class Attack:
    """How often an attack brings the concept back."""

    attack: str
    before: Number
    after: Number
    n: int
    budget: str
    seed: str


@dataclass(frozen=True)
class Fact:
    """A line of the provenance."""

    term: str
    text: str
    mono: bool = False


@dataclass(frozen=True)
class EditPage:
    """All that the page of an edit says."""

    concept: str
    edit: str
    model: str
    created: str  # ISO 8601
    summary: str
    tiles: Sequence[Tile]
    explicit: bool
    galleries: Sequence[Gallery]
    measures: Sequence[Measure]
    quick: Sequence[Quick]
    sites: Sequence[SiteBar]
    facts: Mapping[str, Sequence[Fact]]  # by heading
    files: Sequence[tuple[str, int, str]]  # name, bytes, sha256
    limits: Sequence[str]
    notes: Mapping[str, str] = field(default_factory=dict)  # section: what is not there, and why
    sweep: Sequence[SweepRow] = ()
    tradeoff: TradeoffChart | None = None
    steps: StepChart | None = None
    attacks: Sequence[Attack] = ()
    index: str | None = None  # where the index of all concepts is, relative to the page

    @property
    def hero(self) -> Pair | None:
        """The first pair."""
        return next((gallery.pairs[0] for gallery in self.galleries if gallery.pairs), None)

    @property
    def shown(self) -> int:
        """How many pairs of images the page holds."""
        return sum(len(gallery.pairs) for gallery in self.galleries)


@dataclass(frozen=True)
class IndexRow:
    """A concept in the index."""

    concept: str
    page: str  # the file of its page, beside the index
    edit: str
    model: str
    created: str
    erased: Number
    kept: Number
    density: Number
    n: str  # how many judgements the shares are of
    settings: str
    pair: Pair | None


@dataclass(frozen=True)
class IndexPage:
    """All concepts' latest edits."""

    title: str
    about: str
    rows: Sequence[IndexRow]
    failed: Mapping[str, str]  # concept: why it has no page
