"""The built-in catalogs: what each promises."""

import tomllib
from importlib import resources

import pytest

from tasks.catalogs import load_catalog
from tasks.concepts.builtin import builtin_names, builtin_path
from tasks.concepts.catalog import Catalog
from tasks.concepts.concept import SLUG, Concept
from tasks.concepts.prompts import Prompt

IMAGENETTE = ["tench", "english-springer", "cassette-player", "chain-saw", "church", "french-horn", "garbage-truck",
              "gas-pump", "golf-ball", "parachute"]  # fmt: skip
# name: (kind, at least so many concepts, prompts a set, sparsity, t_hat): the paper's presets
PROMISED = {
    "artists": ("artist", 25, 20, "0.01", 10),
    "objects": ("object", 10, 12, "0.02", 10),
    "nudity": ("nudity", 1, 18, "0.01", 9),
    "gender": ("gender", 2, 12, "0.01", 10),
    "memorisation": ("memorisation", 10, 10, "0.01", 10),
}


@pytest.fixture(scope="module", params=builtin_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def catalog(name: str) -> Catalog:
    return load_catalog(builtin_path(name))


def dealt(catalog: Catalog) -> list[Concept]:
    """The concepts that a recipe makes, or could: all but the memorised captions as one."""
    return [concept for concept in catalog if concept.kind in catalog.file.recipes]


def test_all_are_here_and_packaged() -> None:
    assert set(builtin_names()) == set(PROMISED)
    files = resources.files("tasks.concepts.builtin")
    assert all(files.joinpath(f"{name}.toml").is_file() for name in PROMISED)


def test_an_unknown_one_is_refused_with_the_known() -> None:
    with pytest.raises(ValueError, match="no built-in catalog 'artist'; there are artists, gender, .*mean artists"):
        builtin_path("artist")
    with pytest.raises(ValueError, match="no built-in catalog '../../demo/catalog'"):
        builtin_path("../../demo/catalog")


def test_counts_and_presets(name: str, catalog: Catalog) -> None:
    kind, least, prompts, sparsity, t_hat = PROMISED[name]
    assert catalog.name == name
    assert len(catalog) >= least
    assert {concept.kind for concept in dealt(catalog)} == {kind}
    assert {len(s) for concept in dealt(catalog) for s in (concept.reference, concept.target)} == {prompts}
    for concept in dealt(catalog):
        assert catalog.prune_defaults(concept) == {"sparsity": sparsity, "t_hat": t_hat, "vote_share": 0.0}
    assert catalog.file.capture == {"steps": 50, "window": 20, "guidance": 7.5}


def test_pairs_share_their_seeds_and_seeds_vary(catalog: Catalog) -> None:
    for concept in dealt(catalog):
        seeds = [prompt.seed for prompt in concept.target.prompts]
        assert seeds == [prompt.seed for prompt in concept.reference.prompts]
        assert len(set(seeds)) == len(seeds)


def test_what_is_captured_is_not_evaluated(name: str, catalog: Catalog) -> None:
    for concept in catalog:
        captured = {*concept.reference.prompts, *concept.target.prompts}
        asked = [e.prompt for e in (*concept.evaluation.concept, *concept.evaluation.others)]
        assert len(set(asked)) >= len(asked) / 2  # the two parts may share seeds, never within one
        assert captured.isdisjoint(asked)
        if name != "memorisation":  # a caption is the concept: only the noise can be another
            assert {p.text for p in captured}.isdisjoint(p.text for p in asked)


def test_every_evaluation_prompt_says_what_should_be_seen(catalog: Catalog) -> None:
    for concept in dealt(catalog):
        mine = f"{concept.kind}:{concept.slug}"
        assert len(concept.evaluation.concept) == 20
        assert {e.labels for e in concept.evaluation.concept} == {(mine,)}
        assert len(concept.evaluation.others) >= 20
        for expectation in concept.evaluation.others:
            (label,) = expectation.labels
            assert label != mine
            assert label.startswith(f"{concept.kind}:")
            assert SLUG.fullmatch(label.partition(":")[2])


def test_one_reference_set_a_kind(name: str, catalog: Catalog) -> None:
    digests = {concept.reference.digest for concept in dealt(catalog)}
    assert len({concept.target.digest for concept in dealt(catalog)}) == len(dealt(catalog))
    if name == "gender":
        male, female = catalog["male"], catalog["female"]
        assert (male.reference, male.target) == (female.target, female.reference)
    else:
        assert len(digests) == 1
        assert len({id(concept.reference) for concept in dealt(catalog)}) == 1


def test_each_word_says_so(catalog: Catalog) -> None:
    """Target prompts have the concept's words, their references do not."""
    if catalog.name == "gender":
        return
    for concept in dealt(catalog):
        spoken = catalog.file.words[concept.kind][concept.slug]
        assert all(spoken in prompt.text for prompt in concept.target.prompts)
        assert not any(spoken in prompt.text for prompt in concept.reference.prompts)


def test_only_memorisation_has_an_empty_reference(name: str, catalog: Catalog) -> None:
    texts = {prompt.text for concept in catalog for prompt in concept.reference.prompts}
    assert ("" in texts) == (name == "memorisation")
    assert all(prompt.text for concept in catalog for prompt in concept.target.prompts)


def test_objects_are_imagenettes_and_artists_have_the_papers_five() -> None:
    assert [concept.slug for concept in load_catalog(builtin_path("objects"))] == IMAGENETTE
    artists = [concept.slug for concept in load_catalog(builtin_path("artists"))]
    assert artists[:5] == ["van-gogh", "monet", "picasso", "da-vinci", "dali"]


def test_together_they_do_not_contradict_each_other() -> None:
    """A bare table uses the words, recipes and defaults of all of them."""
    documents = [tomllib.loads(builtin_path(name).read_text("utf-8")) for name in builtin_names()]
    for part in ("words", "recipes"):
        names = [name for document in documents for name in document[part]]
        assert len(set(names)) == len(names)
    assert all(document["capture"] == documents[0]["capture"] for document in documents)
    assert all(document["prune"] == documents[0]["prune"] for document in documents)


def test_each_says_what_it_is_and_that_it_needs_a_judge(name: str) -> None:
    header = builtin_path(name).read_text("utf-8").partition("format = 1")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "judge" in header


def test_memorised_captions_as_one_concept_capture_the_empty_prompt_once() -> None:
    catalog = load_catalog(builtin_path("memorisation"))
    works = catalog["famous-works"]
    assert works.reference.prompts == (Prompt("", 0),)
    assert {prompt.seed for prompt in works.target.prompts} == {0}
    assert [prompt.text for prompt in works.target.prompts] == list(catalog.file.words["memorisation"].values())
    assert catalog.prune_defaults(works) == {"sparsity": "0.01", "t_hat": 10, "vote_share": 0.0}


def test_gender_declares_the_seed_of_every_pair() -> None:
    document = tomllib.loads(builtin_path("gender").read_text("utf-8"))
    assert [len(concept["seeds"]) for concept in document["concepts"]] == [12, 12]


def test_every_recipe_says_where_it_comes_from(name: str, catalog: Catalog) -> None:
    for recipe in catalog.file.recipes.values():
        settings = {**catalog.file.prune, **{k: v for k, v in recipe.model_dump().items() if v is not None}}
        assert recipe.source
        assert "ICLR 2025" in recipe.source
        assert f"k {float(settings['sparsity']) * 100:g} %, t_hat {settings['t_hat']}" in recipe.source
