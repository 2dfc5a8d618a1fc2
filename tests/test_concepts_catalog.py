"""Catalogs: what the bundled one promises, and one sentence for each way to break one."""

import hashlib
import json
from pathlib import Path

import pytest

import demo
from tasks.catalogs import load_catalog
from tasks.concepts.catalog import Catalog
from tasks.concepts.prompts import Prompt

BASE = """
format = 1
name = "zoo"
[prune]
sparsity = "0.1"
t_hat = 3
[words.animal]
cat = "a cat"
dog = "a dog"
owl = "an owl"
[words.place]
sea = "the sea"
wood = "a wood"
[recipes.animal]
reference = "{animal} by {place}"
target = "{concept} by {place}"
pairs = 4
concept = ["{concept} alone", "{concept} at {place}"]
others = ["{animal} alone"]
concept_prompts = 5
others_prompts = 4
[[concepts]]
slug = "owl"
kind = "animal"
"""


def load(folder: Path, text: str) -> Catalog:
    path = folder / "zoo.toml"
    path.write_text(text, "utf-8")
    return load_catalog(path)


@pytest.fixture(scope="module")
def bundled() -> Catalog:
    return load_catalog(demo.CATALOG)


def test_the_bundled_prompts_are_golden(bundled: Catalog) -> None:
    """Captured energies are found by these digests, and edits by the evaluation's prompts: they must not change."""
    prompts = [
        [c.slug, c.reference.digest, c.target.digest,
         [[e.prompt.text, e.prompt.seed, *e.labels] for e in (*c.evaluation.concept, *c.evaluation.others)]]
        for c in bundled
    ]  # fmt: skip
    assert (bundled["fox"].reference.digest, bundled["fox"].target.digest) == ("4f45b4de494d8ece", "a1dcaed455860b8d")
    assert hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16] == "d666fcdac9c42ac3"


def test_styles_share_one_reference_set(bundled: Catalog) -> None:
    styles = [concept for concept in bundled if concept.kind == "style"]
    assert len(styles) == 4
    assert len({concept.reference.digest for concept in styles}) == 1
    assert len({concept.target.digest for concept in styles}) == 4


def test_evaluation_uses_no_captured_prompt(bundled: Catalog) -> None:
    for concept in bundled:
        captured = {*concept.reference.prompts, *concept.target.prompts}
        asked = [e.prompt for e in (*concept.evaluation.concept, *concept.evaluation.others)]
        assert len(asked) == 68
        assert captured.isdisjoint(asked)


def test_pairs_differ_only_in_the_concept(bundled: Catalog) -> None:
    for reference, target in zip(bundled["fox"].reference.prompts, bundled["fox"].target.prompts, strict=True):
        assert reference.seed == target.seed
        assert target.text.startswith("a fox in the style of ")
        assert reference.text.endswith(target.text.removeprefix("a fox"))
        assert "fox" not in reference.text


def test_every_evaluation_prompt_says_what_should_be_seen(bundled: Catalog) -> None:
    for concept in bundled:
        mine = f"{concept.kind}:{concept.slug}"
        assert {e.labels for e in concept.evaluation.concept} == {(mine,)}
        for expectation in concept.evaluation.others:
            assert expectation.labels
            assert mine not in expectation.labels


def test_prompts_come_from_the_recipe(tmp_path: Path) -> None:
    owl = load(tmp_path, BASE)["owl"]
    assert {p.text for p in owl.target.prompts} == {"an owl by the sea", "an owl by a wood"}
    assert all(p.text.startswith(("a cat by ", "a dog by ")) for p in owl.reference.prompts)
    assert [p.seed for p in owl.target.prompts] == [0, 1, 2, 3]
    assert [e.prompt.text for e in owl.evaluation.concept].count("an owl alone") == 3
    assert {e.labels for e in owl.evaluation.others} == {("animal:cat",), ("animal:dog",)}


def test_a_kind_may_have_its_own_prune_defaults(tmp_path: Path) -> None:
    catalog = load(tmp_path, BASE.replace("pairs = 4", 'pairs = 4\nsparsity = "0.2"\nvote_share = 0.5'))
    assert catalog.prune_defaults("animal") == {"sparsity": "0.2", "t_hat": 3, "vote_share": 0.5}
    assert catalog.prune_defaults("other") == {"sparsity": "0.1", "t_hat": 3}


OWN = """
[[concepts]]
slug = "fire"
kind = "scene"
seed = 7
reference = ["a hill", "a house", "a wood"]
target = ["a hill on fire", "a house on fire"]
"""


def test_fault_7_lists_of_unequal_length_are_kept_whole(tmp_path: Path) -> None:
    """The reference code's zip() dropped the longer list's rest without a word."""
    fire = load(tmp_path, BASE + OWN)["fire"]
    assert fire.reference.prompts == (Prompt("a hill", 7), Prompt("a house", 8), Prompt("a wood", 9))
    assert fire.target.prompts == (Prompt("a hill on fire", 7), Prompt("a house on fire", 8))
    assert fire.evaluation.concept == fire.evaluation.others == ()


def test_an_unknown_concept_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no concept 'cow' in catalog zoo; it has owl"):
        load(tmp_path, BASE)["cow"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("format = 1", "format = 2", "format: Input should be 1"),
        ("format = 1", "", "format: Field required"),
        ('name = "zoo"', 'nome = "zoo"', "line 3: nome is unknown; did you mean name?"),
        ('name = "zoo"', "name = zoo", "is not TOML: .*line 3"),
        ("pairs = 4", "pairs = 0", "recipes.animal.pairs: .*greater than or equal to 1"),
        ("pairs = 4", 'pairs = "some"', "recipes.animal.pairs: .*integer"),
        ("pairs = 4", 'pairs = "4"', "line 17: recipes.animal.pairs: .*integer, got '4'"),
        ("pairs = 4", "pairs = true", "line 17: recipes.animal: True is no number"),
        ("pairs = 4", "pairs = 4\nvote_share = 1.0", "line 18: recipes.animal.vote_share: .*less than 1, got 1.0"),
        ("pairs = 4", 'pairs = 4\nsparsity = "200%"', "line 18: recipes.animal: sparsity is 200%; it must be above 0"),
        ("t_hat = 3", "t_hat = 0", r"line 6: \[prune\]: t_hat is 0; it must be 1 or more"),
        ("t_hat = 3", "t_hut = 3", r"line 6: \[prune\] has t_hut, which is unknown; did you mean t_hat\?"),
        ("[prune]", "[capture]\nsteps = 1.5\n[prune]", r"line 5: \[capture\]: steps is 1.5: .*integer"),
        ('cat = "a cat"', 'cat = ""', "words.animal.cat: .*at least 1 character"),
        ('slug = "owl"', 'slug = "Snow Owl"\nwords = "an owl"', "slug 'Snow Owl' is not made of lower-case"),
        ('slug = "owl"', 'slug = "../owl"\nwords = "an owl"', "slug '../owl' is not made of lower-case"),
        ('slug = "owl"', 'slug = "owl\\n"\nwords = "an owl"', "slug 'owl.*' is not made of lower-case"),
        ('slug = "owl"', 'slug = "bat"', r"concept bat has no words; give words = .* or put it into \[words.animal\]"),
        ('kind = "animal"', 'kind = "beast"', r"concept owl has kind 'beast', .*\(there are: animal\)"),
        ('kind = "animal"', 'kind = "animal"\nreference = ["x"]', "concept owl has only one of reference and target"),
        (
            'kind = "animal"',
            'kind = "animal"\nreference = []\ntarget = ["x"]',
            "line 25: concept owl: reference: .*at least 1",
        ),
        (
            'kind = "animal"',
            'kind = "animal"\nseed = -1',
            "line 25: concept owl: seed: .*greater than or equal to 0, got -1",
        ),
        ("{animal} by {place}", "{animal} by {plaice}", "{plaice}, which is no word list; known are concept, animal"),
        ("{animal} by {place}", "{animal by {place}", "cannot be read"),
        ('["{animal} alone"]', '["{anemal} alone"]', "{anemal}, which is no word list"),
        ('cat = "a cat"\ndog = "a dog"\n', "", "{animal}, but no word is left in that list"),
        ('slug = "owl"\n', "", "line 22: concept number 1: slug: Field required"),
        ('slug = "owl"', 'slug = "owl"\nt_hat = 0', "line 24: concept owl: t_hat: .*greater than or equal to 1, got 0"),
        ('slug = "owl"', 'slug = "owl"\nsparsity = "most"', "line 24: concept owl: sparsity 'most' is not a number"),
        ('slug = "owl"', f'slug = "owl"\nwords = "{"an owl " * 300}"', "line 24: concept owl: words: .*at most 2000"),
        ("{animal} by {place}", "{animal!r} by {place}", "formats its words; write only names in braces"),
        ("{animal} by {place}", "{animal} by {place:>9999999}", "formats its words; write only names in braces"),
        ('["{animal} alone"]', '["{concept} alone"]', "line 19: recipes.animal.others: .*shows the concept"),
        ("{animal} by {place}", "{concept} by {place}", "concept owl: reference and target are the same prompts"),
        (BASE[BASE.index("[[concepts]]") :], "", "concepts: Field required"),
    ],
)
def test_a_broken_catalog_is_one_sentence_with_file_and_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in BASE
    with pytest.raises(ValueError, match=says) as caught:
        load(tmp_path, BASE.replace(old, new))
    assert str(caught.value).startswith(f"catalog {tmp_path / 'zoo.toml'}")
    assert "\n" not in str(caught.value)


def test_a_concept_defined_twice_is_refused(tmp_path: Path) -> None:
    twice = BASE + '[[concepts]]\nslug = "owl"\nkind = "animal"\n'
    with pytest.raises(ValueError, match="zoo.toml: line 25: concept owl is defined twice, first at line 22; use"):
        load(tmp_path, twice)


def test_an_evaluation_prompt_that_is_captured_is_refused(tmp_path: Path) -> None:
    """A concept must be judged by other images than it was found by."""
    same = BASE.replace('"{concept} by {place}"', '"{concept}"').replace(
        '["{concept} alone", "{concept} at {place}"]', '["{concept}"]'
    )
    with pytest.raises(ValueError, match="concept owl: evaluation prompt 'an owl' with seed 1000000 is also captured"):
        load(tmp_path, same.replace("pairs = 4", "pairs = 4\nseed = 1_000_000"))


@pytest.mark.parametrize("make", ["missing", "folder", "binary"])
def test_what_is_no_file_of_text_is_one_sentence(tmp_path: Path, make: str) -> None:
    path = tmp_path / "zoo.toml"
    if make == "folder":
        path.mkdir()
    if make == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=f"catalog (at )?{path}") as caught:
        load_catalog(path)
    assert "\n" not in str(caught.value)
