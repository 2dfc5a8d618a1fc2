"""Every error of a catalog at once, each with its line; and no bytes that end in anything else."""

import contextlib
import copy
import io
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import demo
from tasks.catalogs import load_catalog
from tasks.concepts.builtin import builtin_names, builtin_path
from tasks.concepts.catalog import parse_catalog
from tasks.concepts.problems import CatalogError
from tasks.concepts.toml_lines import TomlLines

BROKEN = b"""\xef\xbb\xbfformat = 2
nome = "zoo"
tables = ["more.csv", "gone.parquet", "../up.csv"]

[prune]
t_hat = 0
that = 3

[words.animal]
cat = "a cat"
dog = ""

[words.beast]
[recipes.animal]
reference = "{animal} by {place}"
target = "{concept}"
pairs = 4
others = [
  "{animal}",
  "{concept}",
]

[recipes.beast]
target = "{concept}"
pairs = 0

[[concepts]]
slug = "Owl"
kind = "animal"
[[concepts]]
slug = "cat"
kind = "aminal"
[[concepts]]
slug = "wyrm"  # a beast, whose recipe is to blame
kind = "beast"
target = ["a wyrm"]
[[concepts]]
slug = "cat"
kind = "beast"
seed = -1
wrods = "a cat"
"""

SAYS = """\
catalog zoo.toml has 21 errors:
line 1: format: Input should be 1, got 2
line 2: nome is unknown; did you mean name?
line 3: table gone.parquet is not beside the catalog, or cannot be read
line 3: table '../up.csv' is not a CSV or Parquet file beside the catalog: no folder above, no absolute path, no URL
line 6: [prune]: t_hat is 0; it must be 1 or more: the first denoiser calls that vote
line 7: [prune] has that, which is unknown; did you mean t_hat?
line 11: words.animal.dog: String should have at least 1 character
line 15: recipes.animal.reference: template '{animal} by {place}' has {place}, which is no word list; \
known are concept, animal, beast
line 18: recipes.animal.others: template '{concept}' shows the concept, and others must not; name its list
line 23: recipes.beast.reference: Field required
line 25: recipes.beast.pairs: Input should be greater than or equal to 1, got 0
line 28: concept number 1: slug 'Owl' is not made of lower-case letters, digits and single dashes, at most 200 of them
line 30: concept cat has kind 'aminal', which has no recipe (there are: animal), and no reference and target prompts \
of its own; did you mean animal?
line 33: concept wyrm has only one of reference and target; give both lists, or neither
line 37: concept cat is defined twice, first at line 30; use each slug once
line 40: concept cat: seed: Input should be greater than or equal to 0, got -1
line 41: concept cat: wrods is unknown; did you mean words?
more.csv row 2: concept cat is defined twice, first at line 30; use each slug once
more.csv row 3: concept bat: t_hat: Input should be a valid integer, unable to parse string as an integer, got 'ten'
more.csv row 3: concept bat: vote_share: Input should be less than 1, got '1'
more.csv row 4: slug: Field required"""

MORE = b"slug,kind,t_hat,vote_share\r\ncat,animal,,\r\nbat,animal,ten,1\r\n,animal,,\r\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_every_error_of_a_catalog_and_its_tables_at_once(end: bytes) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(BROKEN.replace(b"\n", end), "zoo.toml", {"more.csv": MORE})
    assert str(caught.value) == SAYS
    assert len(caught.value.problems) == 21


def test_an_error_can_be_sent_to_another_process() -> None:
    error = CatalogError("catalog a has 2 errors:\nx\ny", ("x", "y"))
    again = copy.copy(error)  # by __reduce_ex__, as a pickle would
    assert (str(again), again.problems) == (str(error), error.problems)


def test_tables_join_the_catalog_beside_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "zoo.toml").write_bytes(
        b'format = 1\ntables = ["sub/more.csv"]\n[recipes.animal]\nreference = ""\ntarget = "{concept}"\npairs = 2\n'
        b'[[concepts]]\nslug = "owl"\nkind = "animal"\nwords = "an owl"\nt_hat = 7\n'
    )
    with pytest.raises(CatalogError, match=r"zoo.toml: line 2: table sub/more.csv is not beside the catalog"):
        load_catalog(tmp_path / "zoo.toml")
    (tmp_path / "sub/more.csv").write_bytes(b"slug,kind,words,sparsity\ncat,animal,a cat,0.5\n")
    catalog = load_catalog(tmp_path / "zoo.toml")
    assert [concept.slug for concept in catalog] == ["owl", "cat"]
    assert catalog["owl"].reference is catalog["cat"].reference
    assert {prompt.text for prompt in catalog["cat"].reference.prompts} == {""}
    assert catalog.prune_defaults(catalog["owl"]) == {"t_hat": 7}
    assert catalog.prune_defaults(catalog["cat"]) == {"sparsity": "0.5"}
    assert catalog.prune_defaults("animal") == {}
    assert len(catalog.file.concepts) == 2


def test_an_unknown_concept_of_many_names_the_nearest() -> None:
    rows = "".join(f"artist-{i},artist,Artist {i}\n" for i in range(40))
    catalog = parse_catalog(f"slug,kind,words\n{rows}".encode(), "many.csv")
    with pytest.raises(
        ValueError, match="no concept 'artist_7' in catalog many; it has 40 others; did you mean artist-7"
    ):
        catalog["artist_7"]


@pytest.mark.parametrize("name", ["a.json", "a", "a.toml.txt", ""])
def test_a_file_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(CatalogError, match="its suffix is .*; give a file with .toml, .csv or .parquet"):
        parse_catalog(b"", name)


def only_catalog_errors(data: bytes, name: str) -> None:
    with contextlib.suppress(CatalogError):
        parse_catalog(data, name)
        return
    with pytest.raises(CatalogError) as caught:
        parse_catalog(data, name)
    count = len(caught.value.problems)
    assert len(str(caught.value).splitlines()) == (1 if count == 1 else count + 1)


@given(st.binary(max_size=200), st.sampled_from([".toml", ".csv", ".parquet"]))
@example(b"a = " + b"[" * 100_000, ".toml")
@example(b"[capture]\nsteps = 0x" + b"f" * 20_000, ".toml")
@example(b"format = " + b"9" * 20_000, ".toml")
@example(b'format = 1\n"a\\nb" = 1', ".toml")
@example(b"slug,kind\n" + b"a" * 200_000, ".csv")
@example(b'slug,kind,reference,target\na,b,"[""\\ud800""]","[""x""]"', ".csv")
def test_any_bytes_end_in_a_catalog_or_its_error(data: bytes, suffix: str) -> None:
    only_catalog_errors(data, f"a{suffix}")


NASTY = [
    *("[]", "{}", "[[1]]", "true", "-1", "1e999", "nan", "0xffffffffffffff", "1979-05-27", "{a = 1}", "[1, 2]"),
    *('""', '"x"', '"{"', '"{}"', '"{concept!r:>9}"', '"{concept}"', '[""]', '"0.0000000000001"'),
    "'''a\n[[concepts]]\n'''",
]


@settings(max_examples=200)
@given(st.data())
def test_any_value_anywhere_ends_in_a_catalog_or_its_error(data: st.DataObject) -> None:
    text = builtin_path("gender").read_text("utf-8").split("\n")
    places = [i for i, line in enumerate(text) if " = " in line and not line.endswith("[")]
    for i in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        text[i] = f"{text[i].partition(' = ')[0]} = {data.draw(st.sampled_from(NASTY))}"
    only_catalog_errors("\n".join(text).encode(), "a.toml")


@given(st.data())
def test_damaged_parquet_ends_in_a_catalog_or_its_error(data: st.DataObject) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"slug": ["a", "b"], "kind": ["artist"] * 2, "words": ["A", "B"]}), out)
    damaged = bytearray(out.getvalue())
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=3)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    only_catalog_errors(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]), "a.parquet")


def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every key of a document."""
    if isinstance(value, dict):
        return [p for key, inner in value.items() for p in [(*path, key), *paths(inner, (*path, key))]]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [p for i, inner in enumerate(value) for p in paths(inner, (*path, i))]
    return []


@pytest.mark.parametrize("file", [demo.CATALOG, *map(builtin_path, builtin_names())], ids=lambda path: path.stem)
def test_every_key_is_found_on_its_line(file: Path) -> None:
    text = file.read_text("utf-8")
    lines, found = text.split("\n"), TomlLines(text)
    for path in paths(tomllib.loads(text)):
        line = lines[found.line(path) - 1]
        if path not in [("words",), ("recipes",), ("concepts",)]:  # these have no line of their own
            assert line.startswith((f"{path[-1]} =", f"[{'.'.join(map(str, path))}]", f"[[{path[-1]}]]")), (path, line)


STRINGS = [
    *("'''\n[a]\nb = 1\n'''", '"""x\ny = "2" # no\n"""', "'# no'", '"[[concepts]] # \\" k = 1"', '""""quoted""""'),
    *('["a", [\n"b = 1",\n]]', "{a = [1], b = ']'}", "1  # k = 2", "[ # ]\n1\n]", '\'"""\''),
]
KEYS = ["a", "b-c", '"d.e"', "'f = g'", '"h#i"']


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(STRINGS), st.booleans()), max_size=12))
def test_lines_are_right_whatever_strings_say(rows: list[tuple[str, str, bool]]) -> None:
    text, expected, item = "", {}, -1
    section: tuple[str | int, ...] = ()
    for key, value, new in rows:
        if new:
            item += 1
            text += "[[ concepts ]]  # [x]\n"
            section = ("concepts", item)
            expected[section] = text.count("\n")
        path = (*section, key.strip("'\""))
        if path not in expected:
            text += f" {key} = {value}\n"
            expected[path] = text.count("\n") - value.count("\n")
    tomllib.loads(text)
    found = TomlLines(text)
    assert {path: found.line(path) for path in expected} == expected
    assert found.line(("nothing",)) == 0
