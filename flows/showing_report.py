"""What people see of written reports in the terminal."""

from __future__ import annotations

from flows.report import ReportOutcome
from flows.showing import err, out


def print_report(outcome: ReportOutcome) -> None:
    """Where the pages are, how large, and which concepts have none."""
    for page in outcome.pages:
        what = f"{page['concept']}, edit {page['edit']}"
        images = f"{page['images']} pairs of images, {page['bytes'] / 1e6:.1f} MB"
        out.print(f"{what}: {page['page']} ({images})", highlight=False, soft_wrap=True)
    if outcome.index is not None:
        out.print(f"index: {outcome.index['page']}", highlight=False, soft_wrap=True)
    for slug, why in outcome.failed.items():
        err.print(f"{slug} has no page: {why}", highlight=False, soft_wrap=True)
