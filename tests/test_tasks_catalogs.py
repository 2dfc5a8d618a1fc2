"""Catalogs by path or URL, inside the places that they may come from."""

from pathlib import Path

import pytest

from storage.places import Place
from storage.roots import place_at
from tasks.catalogs import check_place, load_catalog
from tasks.concepts.problems import CatalogError

TOML = b"""format = 1
tables = ["more.csv"]
[recipes.animal]
reference = ""
target = "{concept}"
pairs = 2
[[concepts]]
slug = "owl"
kind = "animal"
words = "an owl"
t_hat = 7
"""
CSV = b"slug,kind,words,sparsity\ncat,animal,a cat,0.5\n"


def put(root: str, **files: bytes) -> Place:
    """A folder with a catalog's files."""
    folder = place_at(f"{root}/catalogs")
    for name, data in files.items():
        (folder / name.replace("_", ".")).put(data)
    return folder


def test_a_catalog_and_its_tables_are_read_where_they_are(root: str) -> None:
    artists = b"slug,kind,words\nvan-gogh,artist,Vincent van Gogh\n"
    folder = put(root, zoo_toml=TOML, more_csv=CSV, artists_csv=artists)
    assert [concept.slug for concept in load_catalog(str(folder / "zoo.toml"))] == ["owl", "cat"]
    assert [concept.slug for concept in load_catalog(str(folder / "artists.csv"))] == ["van-gogh"]


def test_what_is_missing_is_said_with_its_place(root: str) -> None:
    folder = put(root, zoo_toml=TOML)
    with pytest.raises(CatalogError, match=r"zoo.toml: line 2: table more.csv is not beside the catalog"):
        load_catalog(str(folder / "zoo.toml"))
    with pytest.raises(ValueError, match=r"no catalog at .*/none.toml; give the path or URL of a TOML, CSV or Parquet"):
        load_catalog(str(folder / "none.toml"))


def test_a_changed_file_is_another_catalog(root: str) -> None:
    folder = put(root, zoo_toml=TOML, more_csv=CSV)
    assert load_catalog(str(folder / "zoo.toml")) is load_catalog(str(folder / "zoo.toml"))
    put(root, more_csv=CSV.replace(b"cat", b"cow"))
    assert [concept.slug for concept in load_catalog(str(folder / "zoo.toml"))] == ["owl", "cow"]


def test_catalogs_come_from_allowed_places_alone(root: str) -> None:
    check_place(f"{root}/a/zoo.toml", ["/elsewhere", f"{root}/a"])
    for place in (f"{root}/b/zoo.toml", f"{root}/ab/zoo.toml"):
        with pytest.raises(ValueError, match="outside the places that catalogs may come from, .*/a; put it there"):
            check_place(place, [f"{root}/a"])


def test_a_link_or_a_step_up_leads_to_no_other_place(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "secret.toml").write_bytes(TOML)
    (tmp_path / "allowed" / "link.toml").symlink_to(tmp_path / "secret.toml")
    for name in ("link.toml", "../secret.toml"):
        with pytest.raises(ValueError, match="outside the places"):
            check_place(str(tmp_path / "allowed" / name), [str(tmp_path / "allowed")])
