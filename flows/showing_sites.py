"""What people see of a model's sites in the terminal."""

from __future__ import annotations

from rich.table import Table

from flows.showing import out
from flows.site_list import SiteList


def print_sites(found: SiteList) -> None:
    """A row a site, and the sums."""
    table = Table(title=f"{found.model}: family {found.family}, kinds {', '.join(found.kinds)}", title_justify="left")
    table.add_column("site", overflow="fold")
    table.add_column("kind")
    for name in ("width", "weights", "energies a prompt"):
        table.add_column(name, justify="right")
    for site in found.sites:
        kept = "as the first" if site.source else f"{found.bytes_of(site) / 1e3:,.1f} kB"
        table.add_row(site.name, site.kind, f"{site.width:,}", f"{site.width * site.rows:,}", kept)
    out.print(table)
    weights = sum(site.width * site.rows for site in found.sites)
    total = sum(map(found.bytes_of, found.sites)) / 1e6
    out.print(
        f"{len(found.sites)} sites, {weights:,} weights; {total:.1f} MB of energies a prompt at {found.steps} steps",
        highlight=False,
    )
