"""What a capture and an edit are made of, as plain values: no torch here, so that offline work can import it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

Branch = Literal["both", "cond", "uncond"]
BRANCHES: tuple[Branch, ...] = ("both", "cond", "uncond")


@dataclass(frozen=True, order=True)
class NeuronSite:
    """An nn.Linear whose inputs are the neurons: what energies are kept for and what an edit prunes."""

    name: str  # "<component>.<qualified name>", e.g. "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"
    kind: str  # "ffn"
    width: int  # neurons: input features of the Linear
    rows: int  # output features of the Linear

    @property
    def component(self) -> str:
        """The pipeline's component that holds the Linear, e.g. "unet"."""
        return self.name.partition(".")[0]

    @property
    def module(self) -> str:
        """The Linear's qualified name inside its component."""
        return self.name.partition(".")[2]


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how it is loaded."""

    path: str  # a local folder or a hub id
    revision: str | None = None  # 40 hex digits; required for a hub id
    dtype: str = "float32"  # "float32", "float16" or "bfloat16"
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"dtype {self.dtype!r} is unknown; use float32, float16 or bfloat16")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise ValueError(f"device {self.device!r} is unknown; use auto, cpu, cuda, cuda:1 or mps")
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
        return ("uncond", "cond") if self.guidance > 1 else ("cond",)


@dataclass(frozen=True)
class PruneSpec:
    """All that changes a mask when the energies are given."""

    sparsity: Decimal  # k: share of each row that are candidates, above 0 and at most 1
    t_hat: int  # first denoiser calls that vote, 1 to the captured window
    vote_share: float = 0.0  # share of t_hat that must agree, 0 (union, the paper) to below 1
    branch: Branch = "both"
    kinds: tuple[str, ...] = ("ffn",)

    def __post_init__(self) -> None:
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
        }


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
