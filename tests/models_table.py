"""docs/models.md from the results of the families' tests.

python -m pytest -m families -p tests.models_table --models docs/models.md
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

CLAIMS = {  # test: what it shows
    "test_sites_are_those_of_a_list_by_hand": "sites are those of a list by hand",
    "test_energies_equal_a_naive_recomputation_and_the_image_is_unchanged":
        "energies equal a recomputation, the image is unchanged; each scheduler, with and without guidance",
    "test_a_prompt_has_the_energies_that_it_has_alone": "a batch changes no prompt's energies",
    "test_padding_counts_only_where_it_is_wanted": "padding tokens in or out",
    "test_a_store_takes_all_kinds_and_gives_each_site_its_energies": "stored and read, each kind",
    "test_the_masked_columns_are_the_observed_ones": "masked columns are the observed ones",
    "test_patched_weights_survive_saving_and_loading": "patched weights survive save_pretrained and from_pretrained",
    "test_one_edit_of_all_kinds_is_what_plain_loops_prune": "one edit of all kinds is what plain loops prune",
    "test_fault_1_order_identifies_nothing_where_names_sort_unlike_numbers": "order identifies nothing, 11 layers deep",
    "test_a_window_ends_the_run_and_leaves_no_hook": "a window ends the run",
    "test_slices_give_the_same_energies_but_for_rounding": "attention and decoder in slices: the same energies",
    "test_sites_at_the_real_models_size": "sites at the published model's size, from its config",
    "test_a_checkpoint_is_imported_as_it_is": "a single-file checkpoint is imported bit for bit; three precisions",
    "test_an_edited_checkpoint_differs_in_what_is_pruned_alone":
        "an edited single file: every other byte as it was, draws what the patched pipeline draws",
    "test_a_folder_without_its_checkpoint_becomes_one": "a single file written from a folder draws the same",
}  # fmt: skip
HEAD = """# Models

What the tests have shown of each family, on the real diffusers classes with random weights, at the size that
tests/families.py builds, in float32 on a CPU. The models' own weights were not at hand. A cell counts the tests that
passed, of those that ran; - is where there is none. Written by:

    python -m pytest -m families -p tests.models_table --models docs/models.md

"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--models", help="write what the families' tests show to this file")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--models"):
        config.pluginmanager.register(Table(Path(config.getoption("--models"))))


class Table:
    """Counts the families' tests, and writes them down at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ran: Counter[tuple[str, str]] = Counter()
        self.passed: Counter[tuple[str, str]] = Counter()
        self.asked: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            if getattr(item, "originalname", None) in CLAIMS:
                self.asked[item.nodeid] = (item.originalname, item.callspec.params["family"])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.nodeid in self.asked:
            self.ran[self.asked[report.nodeid]] += 1
            self.passed[self.asked[report.nodeid]] += report.passed

    def pytest_sessionfinish(self) -> None:
        if self.ran:
            self.path.write_text(HEAD + self._built() + "\n" + self._shown(), "utf-8")

    def _built(self) -> str:
        from tasks.diffusion.sites import denoiser
        from tests import families

        rows = ["| family | pipeline | denoiser | schedulers | text encoders |", "|---|---|---|---|---|"]
        for family, (_, schedulers) in families.FAMILIES.items():
            pipe = families.build(family)
            encoders = [type(part).__name__ for name, part in sorted(pipe.components.items())
                        if name.startswith("text_encoder")]  # fmt: skip
            classes = [type(families.build(family, name).scheduler).__name__ for name in schedulers]
            named = [
                f"{kind} ({name})" if "-" in name else kind for kind, name in zip(classes, schedulers, strict=True)
            ]
            rows.append(
                f"| {family} | {type(pipe).__name__} | {type(denoiser(pipe)).__name__} | {', '.join(named)} | "
                f"{', '.join(encoders)} |"
            )
        return "\n".join(rows) + "\n"

    def _shown(self) -> str:
        names = list(dict.fromkeys(family for _, family in self.ran))
        rows = [f"| shown | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
        for test, claim in CLAIMS.items():
            ran = [(self.passed[test, family], self.ran[test, family]) for family in names]
            cells = [f"{passed} of {count}" if count else "-" for passed, count in ran]
            rows.append(f"| {claim} | {' | '.join(cells)} |")
        return "\n".join(rows) + "\n"
