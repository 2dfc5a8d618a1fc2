"""What a capture and an edit are made of, as plain values: no torch here, so that offline work can import it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Literal

from tasks.diffusion.slots import canonical_slots, slots_of

Branch = Literal["both", "cond", "uncond"]
BRANCHES: tuple[Branch, ...] = ("both", "cond", "uncond")
Offload = Literal["none", "model", "group"]  # group: a layer at a time, the least memory; model: a component at a time
TierKind = Literal["pooled", "raw"]
MAX_CALLS = 1_000_000  # denoiser calls: more than any run makes


@dataclass(frozen=True, order=True)
class NeuronSite:
    """An nn.Linear whose inputs are the neurons: what energies are kept for and what an edit prunes."""

    name: str  # "<component>.<qualified name>", e.g. "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"
    kind: str  # "ffn", "ffn_in", "attn_k", "attn_v" or "text"
    width: int  # neurons
    rows: int  # output features of the Linear
    start: int = 0  # input features of the Linear before the neurons, which are the last `width`
    once: bool = False  # its input is the same at every step: energies have no step
    source: str = ""  # the site whose input, and so whose energies, it has too; "" = it has its own

    @property
    def component(self) -> str:
        """The pipeline's component that holds the Linear, e.g. "unet"."""
        return self.name.partition(".")[0]

    @property
    def module(self) -> str:
        """The Linear's qualified name inside its component."""
        return self.name.partition(".")[2]

    @property
    def inputs(self) -> int:
        """Input features of the Linear."""
        return self.start + self.width

    def as_json(self) -> dict[str, Any]:
        """The site as JSON values, without what most sites do not have."""
        return {key: value for key, value in asdict(self).items() if value not in (0, False, "")}


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how it is loaded."""

    path: str  # a local folder or a hub id
    revision: str | None = None  # 40 hex digits; required for a hub id
    dtype: str = "float32"  # "float32", "float16" or "bfloat16"
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
    variant: str | None = None  # of the weights' files, such as "fp16"; None = the plain ones
    offload: Offload = "none"  # what lies on the host until it runs: see Offload
    slicing: bool = False  # attention and decoder a slice at a time: less memory, slower

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"dtype {self.dtype!r} is unknown; use float32, float16 or bfloat16")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise ValueError(f"device {self.device!r} is unknown; use auto, cpu, cuda, cuda:1 or mps")
        if self.variant is not None and not re.fullmatch(r"\w{1,20}", self.variant):
            raise ValueError(f"variant {self.variant!r} is unknown; give the word in the files' names, such as fp16")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision {self.revision!r} is not a commit; give all 40 hex digits, so that the weights cannot change"
            )


@dataclass(frozen=True)
class CaptureSpec:
    """All that changes energies, besides the model and the prompts themselves."""

    steps: int = 25  # inference steps asked of the scheduler; it may call the denoiser more often
    window: int | None = None  # first denoiser calls that are captured, then denoising stops; None = all
    guidance: float = 4.0  # classifier-free guidance scale; 1 or less runs no uncond branch
    height: int | None = None  # px; None = the model's own size
    width: int | None = None  # px
    kinds: tuple[str, ...] = ("ffn",)  # site kinds
    padding: bool = True  # whether padding tokens count in a text encoder's energies
    halves: bool = True  # guidance above 1 runs an uncond half; False where it is distilled into the model

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be 1 or more")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is {self.window}; it must be 1 or more, or left out to capture every step")
        if not self.guidance >= 0:
            raise ValueError(f"guidance is {self.guidance}; it must be 0 or more")

    @property
    def branches(self) -> tuple[str, ...]:
        """The halves of the denoiser's batch, in order."""
        return ("uncond", "cond") if self.guidance > 1 and self.halves else ("cond",)

    def as_json(self) -> dict[str, Any]:
        """The spec as JSON values that decide its address: equal captures have equal ones."""
        added = {key: False for key in ("padding", "halves") if not getattr(self, key)}
        old = {key: value for key, value in asdict(self).items() if key not in ("padding", "halves")}
        return {**old, "guidance": float(self.guidance), "kinds": sorted(self.kinds), **added}


@dataclass(frozen=True)
class PruneSpec:
    """All that changes a mask when the energies are given."""

    sparsity: Decimal  # k: share of each row that are candidates, above 0 and at most 1
    t_hat: int  # first denoiser calls that vote, 1 to the captured window
    vote_share: float = 0.0  # share of t_hat that must agree, 0 (union, the paper) to below 1
    branch: Branch = "both"
    kinds: tuple[str, ...] = ("ffn",)  # of the sites that are pruned
    prompts: str | None = None  # slots of both sets that count, such as "0-9,15"; None = all
    include: tuple[str, ...] = ()  # patterns of sites' names, such as "unet.up_blocks*"; none = every site
    exclude: tuple[str, ...] = ()  # likewise, of those that are left alone

    def __post_init__(self) -> None:
        if self.prompts is not None:
            object.__setattr__(self, "prompts", canonical_slots(self.prompts))
        if not self.sparsity.is_finite() or not 0 < self.sparsity <= 1:
            raise ValueError(f"sparsity is {self.sparsity}; it must be above 0 and at most 1, such as 0.05 for 5 %")
        if self.t_hat < 1:
            raise ValueError(f"t_hat is {self.t_hat}; it must be 1 or more: the first denoiser calls that vote")
        if not 0 <= self.vote_share < 1:
            raise ValueError(f"vote_share is {self.vote_share}; it must be 0 or more and below 1")
        if self.branch not in BRANCHES:
            raise ValueError(f"branch {self.branch!r} is unknown; use {', '.join(BRANCHES)}")

    def as_json(self) -> dict[str, object]:
        """The spec as JSON values; the sparsity stays the decimal text that was given."""
        return {
            "sparsity": format(self.sparsity.normalize(), "f"),
            "t_hat": self.t_hat,
            "vote_share": self.vote_share,
            "branch": self.branch,
            "kinds": list(self.kinds),
            **({} if self.prompts is None else {"prompts": self.prompts}),
            **{key: list(patterns) for key in ("include", "exclude") if (patterns := getattr(self, key))},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PruneSpec:
        """The spec that `as_json` wrote."""
        lists = {key: tuple(document[key]) for key in ("kinds", "include", "exclude") if key in document}
        return cls(**{**document, **lists, "sparsity": Decimal(document["sparsity"])})

    def chosen(self, sites: Sequence[NeuronSite]) -> tuple[NeuronSite, ...]:
        """The sites that are pruned, of those that are captured.

        Raises ValueError if a kind is not captured, or a pattern names no site, or none is left.
        """
        captured = sorted({site.kind for site in sites})
        if missing := sorted(set(self.kinds) - set(captured)):
            raise ValueError(
                f"kinds {', '.join(missing)} are not captured, only {', '.join(captured)}; capture them too"
            )
        of_kinds = [site for site in sites if site.kind in self.kinds]
        for pattern in (*self.include, *self.exclude):
            if not any(fnmatchcase(site.name, pattern) for site in of_kinds):
                raise ValueError(
                    f"no site of the kinds {', '.join(self.kinds)} is named {pattern}; see conceptprune sites"
                )
        found = [site for site in of_kinds if not any(fnmatchcase(site.name, pattern) for pattern in self.exclude)]
        if self.include:
            found = [site for site in found if any(fnmatchcase(site.name, pattern) for pattern in self.include)]
        if not found:
            raise ValueError("include and exclude leave no site to prune; see conceptprune sites")
        return tuple(found)


@dataclass(frozen=True)
class TierSpec:
    """What is kept of activations besides energies, where it is asked for."""

    kind: TierKind  # "pooled": mean, absmax and share positive over tokens; "raw": every token's activation
    sites: tuple[str, ...]  # names "<component>.<qualified name>", or patterns of them such as "unet.mid_block*"
    steps: str | None = None  # denoiser calls from 0, such as "0-4"; None = all that are captured

    def __post_init__(self) -> None:
        if self.kind not in ("pooled", "raw"):
            raise ValueError(f"tier {self.kind!r} is unknown; use pooled or raw")
        if not self.sites:
            raise ValueError("a tier without sites was asked for; name at least one, such as 'unet.mid_block*'")
        if self.steps is not None:
            object.__setattr__(self, "steps", canonical_slots(self.steps, "steps"))

    def chosen(self, sites: Sequence[NeuronSite]) -> list[NeuronSite]:
        """The sites that it names, in the order given, of those whose input changes with the step.

        Raises ValueError for a pattern that names none.
        """
        varying = [site for site in sites if not site.once]
        for pattern in self.sites:
            if any(fnmatchcase(site.name, pattern) for site in varying):
                continue
            if any(fnmatchcase(site.name, pattern) for site in sites):
                raise ValueError(
                    f"{pattern} names sites that see the same at every step; a tier is of those that do not"
                )
            raise ValueError(f"no site is named {pattern}; there are {', '.join(site.name for site in varying)}")
        return [site for site in varying if any(fnmatchcase(site.name, pattern) for pattern in self.sites)]

    def calls(self, captured: int) -> list[int]:
        """The denoiser calls that it names, of `captured`. Raises ValueError if there is no such call."""
        return list(range(captured)) if self.steps is None else slots_of(self.steps, captured, "steps")


def parse_sparsity(text: str | float) -> Decimal:
    """The decimal value that a person wrote.

    >>> parse_sparsity("0.29"), parse_sparsity("5%")
    (Decimal('0.29'), Decimal('0.05'))

    Raises ValueError when it is no number.
    """
    words = str(text).strip()
    try:
        return Decimal(words[:-1]) / 100 if words.endswith("%") else Decimal(words)
    except InvalidOperation:
        raise ValueError(f"sparsity {words!r} is not a number; give a share such as 0.05, or 5%") from None
