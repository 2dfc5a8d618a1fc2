"""Tables of concepts: the same concepts whatever the format, and each wrong row by the number people find it by."""

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.concepts.catalog import Catalog, parse_catalog, table_names
from tasks.concepts.problems import CatalogError
from tasks.concepts.prompts import Prompt
from tasks.concepts.tables import COLUMNS, is_table_name

LISTS = ("reference", "target")
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=12)


def as_csv(rows: list[dict[str, Any]], end: str = "\n", bom: bool = False) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(COLUMNS)
    for row in rows:
        cells = {**row, **{key: json.dumps(row[key]) for key in LISTS if key in row}}
        writer.writerow([cells.get(column, "") for column in COLUMNS])
    return out.getvalue().encode("utf-8-sig" if bom else "utf-8")


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    texts, lists = pa.string(), pa.list_(pa.string())
    types = {"reference": lists, "target": lists, "seed": pa.int64(), "t_hat": pa.int64(), "vote_share": pa.float64()}
    schema = pa.schema([(column, types.get(column, texts)) for column in COLUMNS])
    pq.write_table(pa.Table.from_pylist(rows, schema), out)
    return out.getvalue()


def as_toml(rows: list[dict[str, Any]]) -> bytes:
    lines = ["format = 1"]
    for row in rows:
        lines += ["[[concepts]]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in row.items())]
    return "\n".join(lines).encode()


def seen(catalog: Catalog) -> list[Any]:
    return [(c, c.reference.digest, c.target.digest, catalog.prune_defaults(c)) for c in catalog]


@st.composite
def own_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of a kind that no built-in recipe knows, with prompts of their own."""
    rows = []
    for i in range(draw(st.integers(1, 5))):
        row: dict[str, Any] = {"slug": f"c-{i}", "kind": "dragon"}
        row["reference"] = draw(st.lists(st.one_of(TEXT, st.just("")), min_size=1, max_size=3))
        row["target"] = [*draw(st.lists(TEXT, max_size=2)), "a dragon"]
        row |= draw(st.fixed_dictionaries({}, optional={
            "seed": st.integers(0, 2**31), "sparsity": st.sampled_from(["0.01", "5%", "1"]),
            "t_hat": st.integers(1, 51), "vote_share": st.sampled_from([0.0, 0.25, 0.5]), "words": st.just("a dragon"),
        }))  # fmt: skip
        rows.append(row)
    return rows


@given(own_rows(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_concept_is_the_same_from_toml_csv_and_parquet(rows: list[dict[str, Any]], end: str, bom: bool) -> None:
    found = parse_catalog(as_csv(rows, end, bom), "a.csv")
    assert seen(found) == seen(parse_catalog(as_parquet(rows), "a.parquet"))
    written = parse_catalog(as_toml(rows), "a.toml")
    assert [entry[:3] for entry in seen(found)] == [entry[:3] for entry in seen(written)]
    for concept, row in zip(found, rows, strict=True):
        seed = row.get("seed", 0)
        assert concept.reference.prompts == tuple(Prompt(t, seed + i) for i, t in enumerate(row["reference"]))
        own = {key: row[key] for key in ("sparsity", "t_hat", "vote_share") if key in row}
        assert found.prune_defaults(concept) == {"sparsity": "0.01", "t_hat": 10, "vote_share": 0.0, **own}
        assert written.prune_defaults(concept) == own


FAULTS = {  # a cell that is wrong, and what is said of it
    "seed": ("-1", "seed"),
    "sparsity": ("2", "sparsity is 2"),
    "t_hat": ("0.5", "t_hat"),
    "vote_share": ("nan", "vote_share"),
    "slug": ("Ro se", "slug 'Ro se'"),
    "kind": ("", "kind: Field required"),
    "reference": ("a hill", "reference is no JSON list"),
    "target": ('["a", 1]', "target.1: Input should be a valid string"),
}


@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.sampled_from(sorted(FAULTS)))), min_size=1, max_size=8))
def test_every_wrong_cell_of_a_csv_is_told_with_its_line(rows: list[tuple[int, set[str]]]) -> None:
    """Cells over several lines and empty lines must not shift the numbers that an editor shows."""
    out, expected = io.StringIO(newline=""), []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, (extra, faults) in enumerate(rows):
        out.write("\n" * extra)
        line = out.getvalue().count("\n") + 1
        words = "a rose" + "\nof old" * extra
        good = {"slug": f"c-{i}", "kind": "dragon", "words": words, "reference": '["a"]', "target": '["b"]'}
        writer.writerow([FAULTS[c][0] if c in faults else good.get(c, "") for c in COLUMNS])
        expected += [(line, FAULTS[c][1]) for c in faults]
    try:
        parse_catalog(out.getvalue().encode(), "a.csv")
        problems: tuple[str, ...] = ()
    except CatalogError as error:
        problems = error.problems
    assert len(problems) == len(expected)
    for line, says in expected:
        assert [p for p in problems if p.startswith(f"row {line}: ") and says in p], (line, says, problems)


def test_rows_of_parquet_count_from_1() -> None:
    rows = [{"slug": "a", "kind": "artist", "words": "A"}, {"slug": "b", "kind": "artist"}, {"slug": "a", "kind": "x"}]
    with pytest.raises(CatalogError) as caught:
        parse_catalog(as_parquet(rows), "memory/a.parquet")
    assert str(caught.value).splitlines() == [
        "catalog memory/a.parquet has 3 errors:",
        'row 2: concept b has no words; give words = "..." or put it into [words.artist]',
        "row 3: concept a is defined twice, first at row 1; use each slug once",
        "row 3: concept a has kind 'x', which has no recipe (there are: artist, gender, memorisation, nudity, object), "
        "and no reference and target prompts of its own",
    ]


def test_numbers_that_pandas_made_floats_are_numbers() -> None:
    table = pa.table({"slug": ["a", "b"], "kind": ["artist"] * 2, "words": ["A", "B"], "t_hat": [9.0, float("nan")],
                      "sparsity": [0.02, float("nan")]})  # fmt: skip
    out = io.BytesIO()
    pq.write_table(table, out)
    catalog = parse_catalog(out.getvalue(), "a.parquet")
    assert catalog.prune_defaults(catalog["a"]) == {"sparsity": "0.02", "t_hat": 9, "vote_share": 0.0}
    assert catalog.prune_defaults(catalog["b"]) == {"sparsity": "0.01", "t_hat": 10, "vote_share": 0.0}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "catalog a.csv: the file is empty; give a header and a row"),
        (b"\xef\xbb\xbf\r\n\r\n", "catalog a.csv: the file is empty"),
        (b"slug,kind,words\n", "catalog a.csv: there is no concept; add a row"),
        (b"slug;kind;words\na;artist;A\n", "row 1: columns are separated by ';'; separate them by commas"),
        (b"slug,words\na,A\n", "row 1: there is no column kind; columns are slug, kind, words"),
        (b"slug,kind,slug\nmonet,artist,b\n", "row 1: column slug is there twice; keep one"),
        (b"slug,kind,wrods\nmonet,artist,M\n", "row 1: column 'wrods' is unknown; did you mean words?"),
        (b"slug,kind,colour\nmonet,artist,M\n", "row 1: column 'colour' is unknown; known are slug, kind, words"),
        (b"slug,kind\nmonet,artist,M\n", "row 2: there are 3 cells under 2 columns; quote those with commas"),
        (b'slug,kind\nmonet,"artist\n', "row 2: this is not CSV: unexpected end of data"),
        (b"slug,kind\nmonet,artist\ndal\xed,artist\n", "row 3: this is not UTF-8 text; save the file as CSV UTF-8"),
        (b"slug,kind\nmonet,artsit\n", "did you mean artist?"),
        (b'slug,kind,reference\na,dragon,"[""x""]"\n', "row 2: concept a has only one of reference and target"),
        (
            b'slug,kind,reference,target\na,dragon,"[""x""]","[""""]"\n',
            "row 2: concept a: target.0: String should have",
        ),
        (b'slug,kind,reference,target\na,dragon,"[""x""]","[""x""]"\n', "concept a: reference and target are the same"),
        (b"slug,kind,target\na,dragon," + b"[" * 100_000 + b"\n", "row 2: target is no JSON list"),
    ],
)
def test_a_broken_csv_is_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(data, "a.csv")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_column_does_not_hide_other_errors() -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(b"slugg,kind,t_hat\nmonet,artist,0\n", "a.csv")
    assert [p.partition(", got")[0] for p in caught.value.problems] == [
        "row 1: column 'slugg' is unknown; did you mean slug?",
        "row 2: concept monet: t_hat: Input should be greater than or equal to 1",
    ]


def test_what_is_no_parquet_or_too_long_is_refused() -> None:
    with pytest.raises(CatalogError, match="a.parquet: this is not Parquet that can be read"):
        parse_catalog(b"PAR1 or not", "a.parquet")
    out = io.BytesIO()
    pq.write_table(pa.table({"slug": ["a"] * 100_001, "kind": ["artist"] * 100_001}), out)
    with pytest.raises(CatalogError, match="a.parquet: there are 100001 rows; 100000 are the most"):
        parse_catalog(out.getvalue(), "a.parquet")


def test_a_bare_table_uses_the_built_in_words_and_recipes() -> None:
    catalog = parse_catalog(
        b"slug,kind,words,sparsity\nmonet,artist,,\nzorn,artist,Anders Zorn,3%\n", "x/nordic.csv?v=1"
    )
    assert catalog.name == "nordic"
    assert catalog.file.capture == {"steps": 50, "window": 20, "guidance": 7.5}
    monet, zorn = catalog
    assert "Claude Monet" in monet.target.prompts[0].text
    assert monet.reference is zorn.reference
    assert catalog.prune_defaults(zorn)["sparsity"] == "3%"


def test_the_concept_is_not_among_the_others_under_another_slug() -> None:
    (found,) = parse_catalog(b"slug,kind,words\nvincent,artist,vincent van gogh\n", "a.csv")
    assert found.evaluation.others
    assert not [e for e in found.evaluation.others if "Vincent" in e.prompt.text]


@pytest.mark.parametrize(
    "name",
    ["../a.csv", "a/../b.csv", "/a.csv", "C:\\a.csv", "s3://b/a.csv", "a\\b.csv", ".a.csv", "a//b.csv", "", "a.toml",
     "%2e%2e/a.csv", "a.csv?x", "a.csv#b", "a.csv\n", "a/.csv"],
)  # fmt: skip
def test_a_table_outside_the_catalogs_folder_is_refused(name: str) -> None:
    assert not is_table_name(name)
    data = f"format = 1\ntables = {json.dumps([name, 'ok.csv'])}\n".encode()
    assert table_names(data, "a.toml") == ["ok.csv"]
    with pytest.raises(CatalogError, match="line 2: table .* is not a CSV or Parquet file beside the catalog"):
        parse_catalog(data, "a.toml", {name: b"slug,kind\n", "ok.csv": b"slug,kind\n"})


@pytest.mark.parametrize("data", [b"", b"\xff", b"tables = 3", b"tables = [1, [2]]", b"tables = [", b"a.b = 1"])
def test_table_names_leave_complaints_to_the_parser(data: bytes) -> None:
    assert table_names(data, "a.toml") == []
    assert table_names(b"slug,kind", "a.csv") == []


@pytest.mark.timeout(60)  # 2 to 3 s when measured, on one core
def test_five_thousand_concepts_take_seconds_and_share_what_is_the_same() -> None:
    rows = "".join(f"artist-{i},artist,Artist Number {i}\n" for i in range(5000))
    catalog = parse_catalog(f"slug,kind,words\n{rows}".encode(), "many.csv")
    assert len(catalog) == 5000
    assert len({id(concept.reference) for concept in catalog}) == 1
    assert len({id(concept.evaluation.others) for concept in catalog}) == 1
    assert len({concept.target.digest for concept in catalog}) == 5000
