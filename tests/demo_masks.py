"""Masks of the bundled model, computed by the main path; `python -m tests.demo_masks` writes the golden ones anew.

A change of golden masks is a commit of its own that says why.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from flows.config import Request
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from storage.edits import Edit, read_edit_at

GOLDEN = Path(__file__).parent / "golden"
CONCEPTS = ("fox", "rocket", "twemoji")
TOLERANCE = 0.95  # Jaccard index of a site's masks: other processors and thread counts add in another order


def machine() -> dict[str, str]:
    """What may change the last bit of a sum: masks are exact between machines that agree in all of it."""
    wanted = ("vendor_id", "cpu family", "model", "model name")
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {
        **{name: cpu.get(name, "") for name in wanted},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


def cut(concept: str, store: Path, batch: int = 10) -> Edit:
    """The edit of a concept at fixed settings, without images."""
    request = Request(
        concept=concept, store=str(store), sparsity="0.05", t_hat=10, vote_share=0.0, batch=batch, evaluate=False
    )
    return read_edit_at(erase(make_plan(request), Steps()).url)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as store:
        for concept in CONCEPTS:
            (GOLDEN / f"{concept}.mask.safetensors").write_bytes(cut(concept, Path(store)).read("mask.safetensors"))
    (GOLDEN / "machine.json").write_text(json.dumps(machine(), indent=2) + "\n")


if __name__ == "__main__":
    main()
