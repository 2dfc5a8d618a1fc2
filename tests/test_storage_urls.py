"""What a URL means, which settings win, and what errors of the clients say."""

from __future__ import annotations

import json
import logging
import pickle  # noqa: TID251  what dask sends to workers must be picklable; nothing from a store is unpickled
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cloudpickle
import pytest
import zarr

from storage import urls
from storage.models import ModelStore
from storage.roots import Root, place_at
from storage.zarrs import DamagedStore
from tests.activation_cases import SITES, captured, planned
from tests.seaweed import Seaweed


@pytest.mark.parametrize("url", ["s3://bucket/a/b", "s3://bucket/a/b/", "s3://bucket/a/b//"])
def test_one_prefix_has_one_root(url: str) -> None:
    assert Root(url) == Root("s3://bucket/a/b")
    assert Root(url).path("x/y", suffix=".zarr").url == "s3://bucket/a/b/x%2Fy.zarr"
    assert Root("s3://bucket/").path("x").url == "s3://bucket/x"
    assert place_at(url).url == "s3://bucket/a/b"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/x", r"at gs://, but only directories and s3:// work; give a path or s3://bucket/prefix$"),
        ("http://x/y", "at http://, but only"),
        ("S3://bucket/x", "at S3://, but only"),
        ("file://host/x", "at file://, but only"),
        ("s3://", "names no bucket; give s3://bucket/prefix, in lower-case letters$"),
        ("s3:///x", "names no bucket"),
        ("s3://Bucket/x", "names no bucket"),
        ("s3://b/x", "names no bucket"),
        ("s3://bucket/a/../b", r"has an empty, \. or \.\. segment"),
        ("s3://bucket/./b", r"has an empty, \. or"),
        ("s3://bucket/a//b", "has an empty,"),
        ("s3://bucket/a?versionId=1", r"or one of \? and #; give a plain prefix$"),
        ("s3://bucket/a#b", r"or one of \? and #"),
        ("s3://bucket/a\nb", "give a plain prefix"),
        ("", "is empty; give a directory, such as ./store, or s3://bucket/prefix$"),
        ("  ", "is empty"),
    ],
)
def test_other_roots_are_refused_in_one_sentence(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Root(url)


def test_a_secret_in_a_url_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="holds a user name, and maybe a secret") as caught:
        Root("s3://AKEY:CANARY@bucket/x")
    assert "CANARY" not in str(caught.value)
    for name in ("AWS_ENDPOINT_URL", "CONCEPTPRUNE_S3_ENDPOINT"):
        monkeypatch.setenv(name, "http://user:CANARY@127.0.0.1:9")
        with pytest.raises(ValueError, match=f"cannot be used: {name} is not of the form http://host:port") as caught:
            Root("s3://bucket/x").check()
        assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.s3
def test_a_wrong_setting_is_never_taken_for_damage(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out of damage is to delete the store."""
    store = planned(s3_root)
    for name, value in {
        "AWS_ENDPOINT_URL": "127.0.0.1:9",
        "CONCEPTPRUNE_S3_PROFILE": "no-such-profile",
        "AWS_SECRET_ACCESS_KEY": "wrong",
    }.items():
        with monkeypatch.context() as only:
            only.setenv(name, value)
            for read in (store.pending, store.prompts, store.path.get, lambda: ModelStore(s3_root, "m").weight("x")):
                with pytest.raises(Exception) as caught:  # noqa: PT011  either client's, of any kind but these
                    read()
                assert not isinstance(caught.value, DamagedStore)
                assert urls.explain(caught.value), caught.value
    assert store.pending() == [0, 1, 2]


def works(url: str) -> None:
    """Both clients reach it."""
    place = Root(url).path("a")
    place.put(b"x")
    assert place.get() == b"x"
    tree = Root(url).path("b")
    assert tree.put_new_tree(lambda store: zarr.create_group(store, attributes={"x": 1}))
    assert zarr.open_group(tree.store(), mode="r", use_consolidated=False).attrs["x"] == 1
    Root(url).check()


@pytest.mark.s3
def test_our_own_settings_win_over_the_standard_ones(
    s3_root: str, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("CONCEPTPRUNE_S3_ENDPOINT", s3_server.endpoint)
    monkeypatch.setenv("CONCEPTPRUNE_S3_REGION", "eu-north-1")
    works(s3_root)
    files, chunks = urls.filesystem(), urls.bucket_store(s3_root)
    assert files.s3.meta.region_name == "eu-north-1"
    assert chunks.store.config["region"] == "eu-north-1"  # type: ignore[attr-defined]


@pytest.mark.s3
def test_the_standard_region_reaches_both_clients(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    works(s3_root)
    assert urls.filesystem().s3.meta.region_name == "eu-west-3"
    assert urls.bucket_store(s3_root).store.config["region"] == "eu-west-3"  # type: ignore[attr-defined]


@pytest.mark.s3
@pytest.mark.parametrize("variable", ["AWS_PROFILE", "CONCEPTPRUNE_S3_PROFILE"])
def test_a_profile_works_for_both_clients(
    s3_root: str, s3_server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "config").write_text(
        f"[profile tests]\nregion = eu-central-1\nendpoint_url = {s3_server.endpoint}\n[profile empty]\n"
    )
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = AKWRONG\naws_secret_access_key = wrong\n"
        f"[tests]\naws_access_key_id = {s3_server.access_key}\naws_secret_access_key = {s3_server.secret_key}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    if variable == "CONCEPTPRUNE_S3_PROFILE":
        monkeypatch.setenv("AWS_PROFILE", "empty")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKWRONG")  # a profile that is named outright comes first
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv(variable, "tests")
    works(s3_root)
    monkeypatch.setenv(variable, "no-such-profile")
    with pytest.raises(ValueError, match=r"no-such-profile\) could not be found; name one of ~/.aws/config"):
        Root(s3_root).check()


@pytest.mark.s3
def test_credentials_that_expire_work_for_both_clients(
    s3_root: str, s3_server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of roles and single sign-on do: here a profile's own process hands them out."""
    document = {
        "Version": 1, "AccessKeyId": s3_server.access_key, "SecretAccessKey": s3_server.secret_key,
        "Expiration": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    }  # fmt: skip
    (tmp_path / "document.json").write_text(json.dumps(document), "utf-8")
    (tmp_path / "config").write_text(f"[profile lent]\ncredential_process = cat {tmp_path}/document.json\n", "utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lent")
    works(s3_root)


@pytest.mark.s3
def test_what_is_wrong_is_said_before_anything_is_done(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Root(s3_root).check()
    with pytest.raises(ValueError, match="no-such-bucket/x cannot be used: there is no such bucket; create it"):
        Root("s3://no-such-bucket/x").check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ValueError, match="cannot be used: access was denied; check the credentials"):
        Root(s3_root).check()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ValueError, match="no AWS credentials were found; set AWS_ACCESS_KEY_ID"):
        Root(s3_root).check()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ValueError, match="no AWS credentials were found; set AWS_ACCESS_KEY_ID"):
        Root(s3_root).check()


@pytest.mark.s3
def test_a_missing_bucket_is_said_whatever_comes_first(s3_root: str) -> None:
    place = place_at("s3://no-such-bucket/x")
    writes: list[Callable[[], object]] = [
        lambda: place.put(b""),
        lambda: place.put_new(b""),
        lambda: place.compare_and_swap(b"", None),
        lambda: planned(place.url),
    ]
    for write in writes:
        with pytest.raises(Exception) as caught:  # noqa: PT011  of either client
            write()
        assert urls.explain(caught.value) == "there is no such bucket; create it, or give another one"


@pytest.mark.s3
def test_no_server_is_said_in_one_sentence(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"the server did not answer \(EndpointConnectionError\); check the endpoint"):
        Root(s3_root).check()
    with pytest.raises(Exception) as caught:  # noqa: PT011  obstore's
        Root(s3_root).path("x.zarr").put_new_tree(lambda store: None)
    assert (urls.explain(caught.value) or "").startswith("the server did not answer")


@pytest.mark.parametrize(
    "error", [FileNotFoundError("/home/me/bucket/x"), PermissionError(13, "denied"), ValueError("x"), KeyError("x")]
)
def test_errors_of_others_are_not_explained(error: Exception) -> None:
    assert urls.explain(error) is None


@pytest.mark.s3
def test_no_secret_leaves_the_process_or_is_shown(
    s3_root: str, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = captured(s3_root)
    energy, tree, chunks = store.energy(SITES[0].name), store.open(), store.path.store()
    energy.sum().compute()  # so that every client has been used
    shown = [caplog.text]
    for thing in (Root(s3_root), store, store.path, chunks, energy, dict(energy.data.dask), tree):
        shown += [repr(thing), str(thing)]
        for dump in (pickle.dumps, cloudpickle.dumps):
            shown.append(dump(thing).decode("latin-1"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY" + s3_server.secret_key)  # refused: it is another one
    for fail in (Root(s3_root).check, store.path.get, store.pending, lambda: planned(s3_root + "x")):
        with pytest.raises(Exception) as caught:  # noqa: PT011  of either client
            fail()
        shown += [*traceback.format_exception(caught.value), urls.explain(caught.value) or ""]
    assert [text for text in [*shown, caplog.text] if s3_server.secret_key in text or "CANARY" in text] == []
