"""What a URL means, and the clients of an object store: the only file that says s3.

`--store` is a directory, file:///path or s3://bucket/prefix. Endpoint, region and profile come from
CONCEPTPRUNE_S3_ENDPOINT, _REGION and _PROFILE, and where those are not set from the standard AWS chain: AWS_*
variables, ~/.aws, the machine's role. Secrets are only ever read by the two clients, on the machine that uses them.

Two clients, each for what it does better (docs/decisions/005): s3fs for files, obstore for the chunks of Zarr stores.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic_settings import BaseSettings, SettingsConfigDict
from zarr.abc.store import Store

from storage.names import sha256

SCHEME = "s3"
ATTEMPTS = 4  # of a request, by the client that makes it
CONNECT_SECONDS = 5
READ_SECONDS = 30
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ENDPOINT = re.compile(r"https?://[^\s/?#@]+/?")  # without a user and a password, which would be shown in errors


class SettingsError(RuntimeError):
    """A setting of the clients cannot work. No ValueError: stored bytes are not to blame."""


class Settings(BaseSettings):
    """CONCEPTPRUNE_S3_* variables; what is None is left to the standard AWS chain."""

    model_config = SettingsConfigDict(env_prefix="CONCEPTPRUNE_S3_", env_ignore_empty=True, frozen=True)

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None


def canonical(url: str, what: str = "the store's root") -> str:
    """An absolute path, or s3://bucket/prefix without a slash at the end: two spellings of one place are equal.

    Raises ValueError if the URL is empty or of a kind that is not known; `what` says what it is the URL of.
    """
    scheme, separator, _ = url.partition("://")
    if not url.strip():
        raise ValueError(f"{what} is empty; give a directory, such as ./store, or {SCHEME}://bucket/prefix")
    if not separator:
        return os.path.abspath(os.path.expanduser(url))
    parts = urlsplit(url)
    if scheme == "file" and parts.netloc in ("", "localhost"):
        return os.path.abspath(unquote(parts.path))
    if scheme != SCHEME:
        raise ValueError(
            f"{what} is at {scheme}://, but only directories and {SCHEME}:// work; give a path or {SCHEME}://bucket/prefix"
        )
    return _canonical_object(url, what)


def is_object(url: str) -> bool:
    """Whether a canonical URL is in an object store."""
    return url.startswith(f"{SCHEME}://")


def split(url: str) -> tuple[str, str]:
    """The bucket and the key of a canonical object URL.

    >>> split("s3://bucket/some/prefix"), split("s3://bucket")
    (('bucket', 'some/prefix'), ('bucket', ''))
    """
    bucket, _, key = url.removeprefix(f"{SCHEME}://").partition("/")
    return bucket, key


def filesystem() -> Any:
    """s3fs's file system for this process, this environment: no listing cache, few retries."""
    return _filesystem(*_key())


def read(url: str) -> tuple[bytes, str]:
    """A file's bytes and entity tag, both of one reply; asked for again if that breaks off. FileNotFoundError."""
    from aiohttp import ClientError
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError
    from fsspec.asyn import sync

    fs, (bucket, key) = filesystem(), split(url)

    async def once() -> tuple[bytes, str, Exception | None]:
        reply = await fs._call_s3("get_object", Bucket=bucket, Key=key)
        async with reply["Body"] as body:
            try:
                return await body.read(), reply["ETag"], None
            except (ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError) as error:
                return b"", "", error

    for attempt in range(1, ATTEMPTS + 1):
        data, tag, broken = sync(fs.loop, once)
        if broken and attempt == ATTEMPTS:
            raise broken
        if not broken:
            break
    return data, tag


def bucket_store(url: str) -> Store:
    """zarr's store for a whole bucket, of this process and this environment."""
    return _bucket_store(split(url)[0], *_key())


def check(url: str) -> None:
    """Raises ValueError in one sentence if an object URL's bucket cannot be reached with the credentials at hand."""
    bucket, key = split(url)
    try:
        filesystem().call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{key}/" if key else "", MaxKeys=1)
    except Exception as error:
        raise ValueError(f"the store {url} cannot be used: {explain(error) or error}") from error


def explain(error: BaseException) -> str | None:
    """What an error of either client means, in a sentence for people; None if it is not one of theirs."""
    from aiohttp import ClientError as ReplyError
    from botocore import exceptions as aws
    from obstore import exceptions as chunks

    cause = error.__cause__ if isinstance(error, OSError) and error.__cause__ else error
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(cause, aws.ClientError):
        code = str(cause.response.get("Error", {}).get("Code", ""))
    else:  # obstore has no field for it
        found = re.search(r"<Code>(\w+)</Code>", str(cause))
        code = found[1] if found else type(cause).__name__
    if code == "NoSuchBucket":
        return "there is no such bucket; create it, or give another one"
    if isinstance(cause, (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError)):
        return "no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(cause, aws.ProfileNotFound):
        return f"{cause}; name one of ~/.aws/config in AWS_PROFILE or CONCEPTPRUNE_S3_PROFILE"
    denied = isinstance(cause, aws.ClientError) and (isinstance(error, PermissionError) or code == "403")
    if denied or isinstance(error, (chunks.PermissionDeniedError, chunks.UnauthenticatedError)):
        return "access was denied; check the credentials, and their rights to list, read and write there"
    silent = isinstance(cause, chunks.GenericError) and re.search(r"error sending request|body error", str(cause))
    if silent or isinstance(cause, (aws.HTTPClientError, aws.ConnectionError, ReplyError)):  # also timed out, or reset
        return f"the server did not answer ({code}); check the endpoint and the network, then run again"
    if isinstance(cause, (aws.ClientError, aws.BotoCoreError, chunks.BaseError)):
        return f"the server answered {code}; run again, what is done stays done"
    return None


def broke_off(error: Exception) -> bool:
    """Whether a request of obstore's went out and no reply came: it may have been done or not."""
    from obstore.exceptions import GenericError

    return isinstance(error, GenericError) and "kind: Interrupted" in str(error)


def conflict(error: OSError) -> bool:
    """Whether a conditional write was refused because of what is there; it may be our own, sent before.

    NoSuchUpload: an upload in parts that is sent again after its reply was lost.
    """
    from botocore.exceptions import ClientError

    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return False
    status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in (409, 412) or cause.response["Error"]["Code"] in ("PreconditionFailed", "NoSuchUpload")


def _canonical_object(url: str, what: str) -> str:
    bucket, key = split(url.rstrip("/"))
    segments = key.split("/") if key else []
    if "@" in bucket:
        raise ValueError(f"{what} holds a user name, and maybe a secret; give {SCHEME}://bucket/prefix and set AWS_*")
    if not BUCKET.fullmatch(bucket):
        raise ValueError(f"{what} {url} names no bucket; give {SCHEME}://bucket/prefix, in lower-case letters")
    if any(segment in ("", ".", "..") for segment in segments) or re.search(r"[?#\x00-\x1f]", key):
        raise ValueError(f"{what} {url} has an empty, . or .. segment, or one of ? and #; give a plain prefix")
    return url.rstrip("/")


def _key() -> tuple[int, Settings, str]:
    """What a client depends on: the process (neither survives a fork) and the environment, of which a digest."""
    settings = Settings()
    for name in ("CONCEPTPRUNE_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if not ENDPOINT.fullmatch(os.environ.get(name) or "http://unset"):
            raise SettingsError(f"{name} is not of the form http://host:port or https://host; change it")
    environment = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return os.getpid(), settings, sha256(repr(environment).encode())


@lru_cache(maxsize=8)
def _filesystem(pid: int, settings: Settings, environment: str) -> Any:
    import s3fs

    class FileSystem(s3fs.S3FileSystem):  # type: ignore[misc]
        retries = 2  # its own, around botocore's: they multiply

    config = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "s3": {"addressing_style": "path"},
              "retries": {"total_max_attempts": ATTEMPTS, "mode": "standard"}}  # fmt: skip
    return FileSystem(
        anon=False, profile=settings.profile, endpoint_url=settings.endpoint, use_listings_cache=False,
        config_kwargs=config, client_kwargs={"region_name": settings.region} if settings.region else {},
        skip_instance_cache=True,
    )  # fmt: skip


@lru_cache(maxsize=8)
def _bucket_store(bucket: str, pid: int, settings: Settings, environment: str) -> Store:
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    endpoint, region, credentials = _resolved(pid, settings, environment)
    options: Any = {"allow_http": endpoint.startswith("http://"), "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
               "read_timeout": timedelta(seconds=READ_SECONDS), "timeout": timedelta(minutes=10)}  # fmt: skip
    return ObjectStore(S3Store(
        bucket, endpoint=endpoint, aws_endpoint_url_s3=endpoint,  # else AWS_ENDPOINT_URL_S3 would win
        region=region, credential_provider=credentials, virtual_hosted_style_request=False, client_options=options,
        retry_config={"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(minutes=2)},
    ))  # fmt: skip


@lru_cache(maxsize=8)
def _resolved(pid: int, settings: Settings, environment: str) -> tuple[str, str, Callable[[], Any]]:
    """Endpoint, region and a source of credentials as the standard chain has them: obstore's own knows no profiles."""
    from botocore.exceptions import NoCredentialsError
    from botocore.session import Session

    session = Session(profile=settings.profile)
    client = session.create_client("s3", endpoint_url=settings.endpoint, region_name=settings.region)
    found = session.get_credentials()
    if found is None:
        raise NoCredentialsError

    def credentials() -> Any:
        now = found.get_frozen_credentials()  # refreshes them when they are about to expire
        expires = getattr(found, "_expiry_time", None)
        return {"access_key_id": now.access_key, "secret_access_key": now.secret_key, "token": now.token,
                "expires_at": expires and expires.astimezone(UTC)}  # fmt: skip  # obstore takes no other zone

    return client.meta.endpoint_url, client.meta.region_name or "us-east-1", credentials
