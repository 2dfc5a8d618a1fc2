"""The provenance of a report: what made an edit, how it was captured, how images were drawn, what its files are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from storage.activations import ActivationStore
from storage.edits import Edit
from tasks.pages.page import Fact
from tasks.pages.words import drawing


def facts(store: str, edit: Edit, documents: Sequence[Mapping[str, Any]]) -> dict[str, list[Fact]]:
    """What made the edit, by heading."""
    manifest, model = edit.manifest, edit.manifest["model"]
    base = [
        Fact("Model", str(model["id"])),
        Fact("Revision", str(model.get("revision") or "a local folder, no revision")),
        Fact("Fingerprint", str(model["fingerprint"]), True),
        Fact("Licence", str(model.get("licence") or "not stated")),
    ]
    made = [Fact("Edit", edit.id, True), Fact("Manifest", f"sha256 {edit.digest}", True),
            Fact("Made", str(manifest["created"])), Fact("Settings", settings(manifest["prune"]))]  # fmt: skip
    for name, term in (("kinds", "Site kinds"), ("include", "Only sites"), ("exclude", "Not sites")):
        if given := manifest["prune"].get(name):
            made.append(Fact(term, ", ".join(given)))
    made += [Fact("Profile", str(manifest["profile"]), True)] if manifest["profile"] else []
    made += [Fact(f"{role.capitalize()} prompts", str(value), True) for role, value in manifest["prompt_sets"].items()]
    return {
        "The base model": base, "The edit": made, "How it was captured": _captured(store, edit),
        "How images were drawn": _drawn(documents),
        "Versions": [Fact(name, str(value)) for name, value in sorted(manifest["versions"].items())],
    }  # fmt: skip


def settings(prune: Mapping[str, Any]) -> str:
    """What made a mask, for people."""
    if "combined" in prune:
        erased = " + ".join(f"{slug}@{edit}" for slug, edit in sorted(prune["combined"]["erase"].items()))
        kept = "".join(f" − {slug}@{edit}" for slug, edit in sorted(prune["combined"]["protect"].items()))
        return f"combined of {erased}{kept}"
    slots = f", prompts {prune['prompts']}" if prune.get("prompts") else ""
    made = f"k {prune['sparsity']}, t_hat {prune['t_hat']}, vote share {prune['vote_share']:g}"
    return f"{made}, branch {prune['branch']}{slots}"


def _captured(store: str, edit: Edit) -> list[Fact]:
    """How activations were captured; nothing if they are not in the store any more."""
    target = edit.manifest["prompt_sets"].get("target")
    if not target or not ActivationStore(store, edit.manifest["profile"], target).exists():
        return []
    known = ActivationStore(store, edit.manifest["profile"], target)
    profile = known.attributes()
    capture = profile["capture"]
    out = [Fact("Target prompts", f"{known.size()}")]
    reference = ActivationStore(store, edit.manifest["profile"], edit.manifest["prompt_sets"]["reference"])
    out += [Fact("Reference prompts", f"{reference.size()}")] if reference.exists() else []
    out += [Fact("Steps", f"{capture['steps']}, the first {known.steps_and_branches()[0]} kept"),
            Fact("Guidance", f"{capture['guidance']:g}"), Fact("dtype", str(profile["dtype"])),
            Fact("Scheduler", str(profile["scheduler"].get("_class_name", "")))]  # fmt: skip
    return out


def _drawn(documents: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """How evaluations drew their images; nothing without one."""
    draws = {json.dumps(one["draws"]["before"], sort_keys=True): one["draws"]["before"] for one in documents}
    out = []
    for _, about in sorted(draws.items()):
        out += [Fact("Drawing", drawing(about)), Fact("Scheduler", str(about["scheduler"].get("_class_name", ""))),
                Fact("Safety checker", f"{about['safety_checker']}: it never blacks out an image here")]  # fmt: skip
    return out


def files(edit: Edit) -> list[tuple[str, int, str]]:
    """The files that the manifest promises: name, bytes, sha256."""
    return [(name, int(entry["size"]), str(entry["sha256"])) for name, entry in sorted(edit.manifest["files"].items())]
