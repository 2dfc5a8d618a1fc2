"""A report in a real browser: it fetches nothing, complains of nothing, and everything on it can be worked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.erase_cases import Case
from tests.report_cases import build
from tests.test_flows_cli import cli

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# As root a sandbox cannot start; the others keep the browser itself from asking its maker's hosts anything.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PHONE, DESKTOP = {"width": 375, "height": 800}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def pages(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index and the pages of two concepts."""
    folder = tmp_path_factory.mktemp("browsed")
    build(case, folder / "store")
    words = ["--store", folder / "store", "--catalog", case.catalog, "--no-prefect"]
    result = cli("report", "--all", "--to", folder / "pages", *words)
    assert result.exit_code == 0, result.output
    return folder / "pages"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser is installed, none of {', '.join(BROWSERS)}; Debian's package is chromium")
    from playwright.sync_api import sync_playwright  # only for these tests

    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any, pages: Path) -> Iterator[Any]:
    """Opens a page, and holds at the end that it logged nothing, failed at nothing and fetched only itself."""
    complaints: list[str] = []
    fetched: list[str] = []
    contexts = []

    def open_page(name: str, scheme: str = "light", viewport: dict[str, int] = DESKTOP, **options: Any) -> Any:
        context = browser.new_context(color_scheme=scheme, viewport=viewport, **options)
        contexts.append(context)
        context.on("request", lambda request: fetched.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto((pages / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            page.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager' })")
            assert page.evaluate("Promise.all([...document.images].map(image => image.decode())).then(() => true)")
        context.close()
    ours = {path.as_uri() for path in pages.iterdir()}
    assert [url for url in fetched if not url.startswith("data:") and url.partition("#")[0] not in ours] == []
    assert complaints == []


def column(page: Any, table: str, number: int) -> list[str]:
    return page.eval_on_selector_all(
        f"{table} tbody tr > :nth-child({number + 1})",
        "cells => cells.map(cell => cell.dataset.sort ?? cell.innerText)",
    )


def test_tables_sort_by_their_headings(opened: Any) -> None:
    page = opened("fox.html")
    table = "table.sites"
    first = column(page, table, 0)
    heading = page.locator(f"{table} thead th").nth(1)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    values = [float(value) for value in column(page, table, 1)]
    assert values == sorted(values)
    assert len(values) > 1
    page.keyboard.press("Enter")  # the button has the focus
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(value) for value in column(page, table, 1)] == sorted(values, reverse=True)
    assert "Sorted by Pruned, share" in page.locator(".live").inner_text()
    page.locator(f"{table} thead th").nth(0).get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "none"
    assert column(page, table, 0) == sorted(first)


def test_sliders_move_by_keyboard_and_pointer(opened: Any) -> None:
    page = opened("fox.html")
    pair = page.locator(".pairs .pair").first
    slider, before = pair.get_by_role("slider"), pair.locator("img.before")

    def clip() -> str:
        return before.evaluate("image => getComputedStyle(image).clipPath")

    assert "Before and after" in slider.get_attribute("aria-label")
    start = clip()
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert slider.input_value() == "60"
    assert slider.get_attribute("aria-valuetext") == "60 % before"
    assert clip() != start
    page.keyboard.press("Home")
    assert slider.input_value() == "0"
    box = pair.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert 23 <= int(slider.input_value()) <= 27
    every = page.locator(".gallery").first.locator(".slide-all")
    every.focus()
    page.keyboard.press("End")
    values = page.locator(".gallery").first.locator(".pair .slider").evaluate_all("all => all.map(one => one.value)")
    assert set(values) == {"0"}


def test_explicit_images_are_blurred_until_asked_for(opened: Any) -> None:
    page = opened("fox.html")
    covered = page.locator(".pair.covered").first
    blurred = covered.locator("img.after").element_handle()
    assert "blur" in blurred.evaluate("image => getComputedStyle(image).filter")
    number = page.locator(".covered").count()
    assert number == 2
    page.locator(".reveal").first.focus()
    page.keyboard.press("Enter")
    assert blurred.evaluate("image => getComputedStyle(image).filter") == "none"
    assert page.locator(".covered").count() == number - 1
    assert page.evaluate("document.activeElement.type") == "range"
    page.get_by_role("button", name="Show all images").click()
    assert page.locator(".covered").count() == 0


def test_without_script_both_images_stand_side_by_side(opened: Any) -> None:
    context = opened("fox.html").context.browser.new_context(java_script_enabled=False, viewport=DESKTOP)
    page = context.new_page()
    page.goto(opened("fox.html").url)
    pair = page.locator(".pairs .pair").first
    left, right = (pair.locator(f"img.{when}").bounding_box() for when in ("before", "after"))
    assert left["x"] + left["width"] <= right["x"]
    assert "blur" in page.locator(".covered img").first.evaluate("image => getComputedStyle(image).filter")
    context.close()


@pytest.mark.parametrize("name", ["fox.html", "apple.html", "index.html"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_scrolls_sideways(opened: Any, name: str, viewport: dict[str, int]) -> None:
    page = opened(name, viewport=viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    wide = page.evaluate("""[...document.querySelectorAll("main *")].filter(element =>
        element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".toc, .live, svg")
    ).map(element => element.outerHTML.slice(0, 80))""")
    assert wide == []


CONTRAST = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const bad = [];
  const texts = "h1, h2, h3, p, dt, dd, th, td, caption, figcaption, a, button, .interval, code, li";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.innerText?.trim() || element.closest(".stage, .toc, .skip, .live, :disabled")) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["fox.html", "index.html"])
def test_text_can_be_read_in_light_and_dark(opened: Any, name: str, scheme: str) -> None:
    page = opened(name, scheme=scheme)
    grounds = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(grounds) < 200) == (scheme == "dark")
    assert page.evaluate(CONTRAST) == []


def test_a_hostile_prompt_stands_there_as_text(opened: Any) -> None:
    page = opened("fox.html")
    assert page.locator("script").count() == 1
    assert page.get_by_text("<script>alert&").count() >= 1


def test_the_first_tab_skips_to_the_content(opened: Any) -> None:
    page = opened("fox.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


def test_the_index_sorts_filters_and_leads_to_the_pages(opened: Any) -> None:
    page = opened("index.html")
    table = "#concepts"
    assert len(column(page, table, 1)) == 2
    erased = page.locator(f"{table} thead th").nth(2)
    erased.get_by_role("button").click()
    assert column(page, table, 2)[-1] == ""  # what nobody judged stays last
    erased.get_by_role("button").click()
    assert column(page, table, 2)[-1] == ""
    page.get_by_label("Find a concept").fill("appl")
    assert page.locator(f"{table} tbody tr:visible").count() == 1
    assert page.locator(".filter-count").inner_text() == "1 of 2"
    page.get_by_label("Find a concept").fill("")
    page.get_by_role("link", name="fox").click()
    assert page.locator("h1").inner_text().startswith("fox")
    page.get_by_role("link", name="All concepts").click()
    assert page.title().startswith("Erased concepts")
