"""Pages laid out by the templates: all that is said is escaped, nothing is fetched, no script but ours can run."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tasks.pages.page import EditPage, IndexPage

TEMPLATES = Path(__file__).resolve().parent / "templates"


def render_edit(page: EditPage) -> bytes:
    """The page of an edit."""
    return _render("edit.html", page=page)


def render_index(page: IndexPage) -> bytes:
    """The index of all concepts."""
    return _render("index.html", page=page)


def _render(name: str, **values: object) -> bytes:
    text = environment().get_template(name).render(**values)
    return text.encode("utf-8", "replace")  # a lone surrogate in a prompt is no text that a browser could show


@cache
def environment() -> Environment:
    """The templates, with autoescape on for all of them."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    script = _asset("page.js")
    made.globals["style"] = Markup(_asset("page.css"))  # ours, not the store's
    made.globals["script"] = Markup(script)
    made.globals["script_hash"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.filters["breakable"] = breakable
    return made


def breakable(name: str) -> Markup:
    """A dotted or hyphenless name that may go on in the next line after each dot and slash."""
    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("/", "/<wbr>"))


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text("utf-8")
