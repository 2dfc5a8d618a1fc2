"""Concepts of the user's own: by a name and a recipe, or by two lists of prompts; seeds for each prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.catalogs import load_catalog
from tasks.concepts.adding import with_concept
from tasks.concepts.builtin import builtin_names, builtin_path
from tasks.concepts.catalog import parse_catalog
from tasks.concepts.problems import CatalogError
from tasks.concepts.prompts import Prompt
from tests.test_concepts_catalog import BASE
from tests.test_flows_cli import cli, refused


def test_a_name_and_a_kind_make_the_prompts_of_that_kinds_recipe() -> None:
    text = with_concept(None, "mine.toml", "golf-ball", "object", "a golf ball")
    mine, theirs = parse_catalog(text.encode(), "mine.toml"), load_catalog(builtin_path("objects"))
    ball = theirs["golf-ball"]
    assert (mine["golf-ball"].reference, mine["golf-ball"].target) == (ball.reference, ball.target)
    assert mine.prune_defaults(mine["golf-ball"]) == theirs.prune_defaults(ball)
    assert mine.file.capture == theirs.file.capture
    more = parse_catalog(with_concept(text, "mine.toml", "owl", "object", "an owl").encode(), "mine.toml")
    assert [concept.slug for concept in more] == ["golf-ball", "owl"]
    assert more["owl"].reference == ball.reference  # captured once
    assert {label for e in more["owl"].evaluation.others for label in e.labels} <= {
        f"object:{label}" for label in theirs.file.words["object"]
    }


def test_two_lists_make_a_concept_of_any_kind_with_the_papers_settings() -> None:
    lists = (["a sea", 'a "hill"\\', ""], ["a sea\u007f kraken", "Kraken é 🐙", "k"])
    catalog = parse_catalog(with_concept(None, "m.toml", "kraken", "monster", None, *lists).encode(), "m.toml")
    concept = catalog["kraken"]
    assert concept.reference.prompts == tuple(Prompt(text, i) for i, text in enumerate(lists[0]))
    assert concept.target.prompts == tuple(Prompt(text, i) for i, text in enumerate(lists[1]))
    assert catalog.prune_defaults(concept) == {"sparsity": "0.01", "t_hat": 10, "vote_share": 0.0}


def test_seeds_are_given_prompt_by_prompt() -> None:
    entry = 'reference = ["a", "b"]\ntarget = ["c", "d"]\nseeds = [7, 5]\n'
    text = BASE + f'[[concepts]]\nslug = "pair"\nkind = "odd"\n{entry}'
    concept = parse_catalog(text.encode(), "zoo.toml")["pair"]
    assert [(p.text, p.seed) for p in concept.reference.prompts] == [("a", 7), ("b", 5)]
    assert [(p.text, p.seed) for p in concept.target.prompts] == [("c", 7), ("d", 5)]
    with_recipe = BASE.replace("pairs = 4", "pairs = 4\nseeds = [9, 9, 4, 1]")
    owl = parse_catalog(with_recipe.encode(), "zoo.toml")["owl"]
    assert [p.seed for p in owl.target.prompts] == [9, 9, 4, 1]
    with pytest.raises(CatalogError, match="recipes.animal: seeds has 1 numbers for 4 pairs; give one for each"):
        parse_catalog(BASE.replace("pairs = 4", "pairs = 4\nseeds = [9]").encode(), "zoo.toml")
    with pytest.raises(CatalogError, match="seeds has 1 numbers for 2 prompts of its own; give one for each"):
        parse_catalog(text.replace("[7, 5]", "[7]").encode(), "zoo.toml")


def test_a_table_has_seeds_too() -> None:
    table = 'slug,kind,reference,target,seeds\nx,odd,"[""""]","[""a"", ""b""]","[4, 4]"\n'
    concept = parse_catalog(table.encode(), "t.csv")["x"]
    assert [p.seed for p in (*concept.reference.prompts, *concept.target.prompts)] == [4, 4, 4]


def test_extending_a_built_in_catalog_takes_what_is_not_there() -> None:
    text = """format = 1
    extends = ["objects", "artists"]
    [prune]
    sparsity = "0.3"
    [words.object]
    owl = "an owl"
    [recipes.artist]
    reference = "{thing}"
    target = "{concept}: {thing}"
    pairs = 2
    [[concepts]]
    slug = "owl"
    kind = "object"
    [[concepts]]
    slug = "monet"
    kind = "artist"
    """
    catalog, objects = parse_catalog(text.encode(), "mine.toml"), load_catalog(builtin_path("objects"))
    assert [concept.slug for concept in catalog] == ["owl", "monet"]  # not the built-in ones' concepts
    assert catalog["owl"].target.prompts[0].text.startswith("an owl in ")
    assert catalog.file.words["object"] == {**objects.file.words["object"], "owl": "an owl"}
    assert [prompt.text.startswith("Claude Monet: ") for prompt in catalog["monet"].target.prompts] == [True, True]
    assert catalog.prune_defaults("artist") == {"sparsity": "0.3", "t_hat": 10, "vote_share": 0.0}
    with pytest.raises(CatalogError, match=r"line 2: extends: no built-in catalog 'object'; .*did you mean objects"):
        parse_catalog(text.replace('"objects"', '"object"').encode(), "mine.toml")
    with pytest.raises(CatalogError, match="extends"):
        parse_catalog(b'format = 1\nextends = "objects"\n', "mine.toml")


def test_the_command_writes_a_file_and_says_what_comes_next(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    first = cli("catalog", "add", file, "lighthouse", "--kind", "object", "--words", "a lighthouse")
    assert first.exit_code == 0, first.output
    assert f"conceptprune erase lighthouse --catalog {file}" in first.stdout
    (tmp_path / "r.txt").write_text("\n", "utf-8")
    (tmp_path / "t.txt").write_text("a memorised caption\nanother\n", "utf-8")
    words = ["--kind", "captions", "--reference", tmp_path / "r.txt", "--target", tmp_path / "t.txt", "--seed", "0"]
    second = cli("catalog", "add", file, "captions", *words)
    assert second.exit_code == 0, second.output
    assert "1 reference and 2 target prompts, none to evaluate with" in second.stdout
    assert [prompt.seed for prompt in load_catalog(file)["captions"].target.prompts] == [0, 0]
    before = file.read_bytes()
    refused(cli("catalog", "add", file, "lighthouse", "--kind", "object", "--words", "x"), "is defined twice, first at")
    refused(cli("catalog", "add", file, "No Slug", "--kind", "object", "--words", "x"), "is not made of lower-case")
    refused(cli("catalog", "add", file, "half", *words[:4]), "give both --reference and --target")
    refused(cli("catalog", "add", file, "gone", *words[:5], tmp_path / "no.txt"), "cannot be read")
    assert file.read_bytes() == before
    new = tmp_path / "new.toml"
    refused(cli("catalog", "add", new, "x", "--kind", "thing"), "kind 'thing' has no recipe; choose one of artist, ")
    refused(cli("catalog", "add", tmp_path / "a.csv", "x", "--kind", "object"), "is no TOML catalog")
    assert not new.exists()


def test_the_built_in_catalogs_are_listed_with_their_sources() -> None:
    listed = cli("catalog", "list")
    assert listed.exit_code == 0
    for name in builtin_names():
        for kind, recipe in load_catalog(builtin_path(name)).file.recipes.items():
            assert f"{name}: kind {kind}, " in listed.stdout
            assert f'"{recipe.target}"\n  source    {recipe.source}\n' in listed.stdout
