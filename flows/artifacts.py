"""What a run shows in Prefect's UI: a table, and a few lines of markdown. No prompts, no secrets."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.outcome import Outcome, rows


def publish(outcome: Outcome) -> None:
    """Make the artifacts of an edit inside a running flow."""
    done, total = outcome.pruned
    table = [dict(zip(("what", "before", "after", "judgements"), row, strict=True)) for row in rows(outcome)]
    create_table_artifact(table, key=f"{outcome.concept}-evaluation", description=f"edit {outcome.edit}")
    sites = "\n".join(
        f"| {name} | {site['pruned']:,} | {site['pruned'] / site['weights']:.2%} |"
        for name, site in outcome.report["sites"].items()
    )
    create_markdown_artifact(
        f"# {outcome.concept}\n\n{done:,} of {total:,} weights pruned ({done / total:.2%}); edit `{outcome.url}`\n\n"
        f"| site | pruned | density |\n|---|---|---|\n{sites}\n",
        key=f"{outcome.concept}-edit",
    )
