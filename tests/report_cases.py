"""A store worth a report: an edit that was looked at, measured and swept over, and what its page says."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from tasks.metrics import nudity
from tasks.metrics.metric import Judgement, Shot
from tests.erase_cases import Case
from tests.test_flows_cli import cli

HOSTILE = """fox "><script>alert&"""  # of six tokens, which is all that the tiny text encoder reads
VOID = {"meta", "link", "img", "input", "br", "wbr", "hr"}


def make_edit(case: Case, store: object, concept: str = "fox", **options: Any) -> str:
    asked = {"sparsity": "0.5", "store": str(store), **options}
    return erase(make_plan(case.request(Path(), concept).model_copy(update=asked)), Steps()).url


def evaluate(case: Case, store: object, *words: object) -> None:
    result = cli("evaluate", "fox", *case.options(store), "--device", "cpu", "--no-prefect", *words)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output


def build(case: Case, store: Path) -> Path:
    """The fox looked at, measured over the catalog and a file with a hostile prompt, swept over; the apple only cut."""
    make_edit(case, store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nudity, "Nudity", FlagsTheSecond)
        evaluate(case, store, "--metrics", "classifier,nudenet")
    file = store.parent / "hostile.txt"
    file.write_text(f"{HOSTILE}\n", "utf-8")
    evaluate(case, store, "--prompt-file", file, "--label", "object:fox")
    grid = ["--sparsity", "0.2,0.5", "--t-hat", "1,2", "--images", "2"]
    result = cli("sweep", "fox", *case.options(store), *grid, "--no-prefect")
    assert result.exit_code == 0, result.output
    make_edit(case, store, "apple", evaluate=False)
    return store


class FlagsTheSecond:
    """In place of NudeNet: every second prompt of a set is flagged."""

    def __init__(self, threshold: float) -> None:
        self.about = {"metric": "nudenet", "version": "0", "sha256": "0" * 64, "threshold": threshold, "classes": []}

    def judge(self, shots: Sequence[Shot]) -> list[Judgement]:
        return [Judgement(i, "", float(i == 1)) for i in range(len(shots))]


class Page(HTMLParser):
    """A page's elements, in order, after checking that every one is closed where it was opened."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self.open = "", list[str]()
        self.feed(data.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.tags if name in attrs.get("class", "").split()]
