"""Settings of the environment, and the requests that flows take: plain values, no arrays, no secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import demo
from tasks.catalogs import check_place
from tasks.concepts.builtin import builtin_names, builtin_path
from tasks.diffusion.spec import Branch, ModelSpec, Offload

DEMO = "demo"  # the bundled model, catalog and judge
BUNDLED = {DEMO: demo.CATALOG, "demo-shared": demo.SHARED_CATALOG}  # catalogs for the bundled model


class Settings(BaseSettings):
    """CONCEPTPRUNE_* variables: defaults of the command line's options, and what a deployment may reach."""

    model_config = SettingsConfigDict(env_prefix="CONCEPTPRUNE_")

    store: str = "conceptprune-store"
    catalog: str = DEMO
    model: str = DEMO
    judge: str = DEMO
    device: str = "auto"
    offload: Offload = "none"
    slicing: bool = False
    batch: int = Field(default=10, ge=1)  # prompts drawn at once
    max_bytes: ByteSize = ByteSize(10_000_000_000)  # that an observation may store
    catalog_roots: Annotated[list[str] | None, NoDecode] = None  # directories and URLs, by commas; None = anywhere
    gpu_limit: str | None = Field(default=None, min_length=1)  # global concurrency limit that a capture takes a slot of
    capture_deployment: str = "capture-catalog/capture-share"  # what a catalog's run shares its captures out to

    @field_validator("catalog_roots", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @classmethod
    def read(cls) -> Settings:
        """The settings of this environment. Raises ValueError that names the variable."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = f"CONCEPTPRUNE_{first['loc'][0]}".upper()
            raise ValueError(f"{name} is {first['input']!r}: {first['msg']}") from None

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The defaults of a request's fields."""
        return cls.read().model_dump(exclude={"catalog_roots", "gpu_limit", "capture_deployment"})


# In the form that Prefect's UI draws, a field is called what it is called everywhere else.
FORM = ConfigDict(frozen=True, extra="forbid", field_title_generator=lambda name, _: name)


class Common(BaseModel):
    """What every run may be asked for. What is None comes from the catalog, or the store."""

    model_config = FORM

    store: str = Field(default="conceptprune-store", min_length=1, description="directory or s3://bucket/prefix")
    catalog: str = Field(
        default=DEMO, min_length=1, description="built-in name, or path or URL of a TOML, CSV or Parquet file"
    )
    model: str = Field(default=DEMO, min_length=1, description="diffusers folder or hub id")
    revision: str | None = Field(default=None, description="for a hub id: the commit, 40 hex digits")
    judge: str = Field(default=DEMO, min_length=1, description="folder of an image classifier")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(default="float32", description="of the model's weights")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 or mps")
    variant: str | None = Field(default=None, description="of the weights' files, such as fp16; else the plain ones")
    offload: Offload = Field(
        default="none", description="on the host until it runs: model = a component, group = a layer, the least memory"
    )
    slicing: bool = Field(default=False, description="attention and decoder a slice at a time: less memory, slower")
    batch: int = Field(default=10, ge=1, le=1024, description="prompts drawn at once")
    steps: int | None = Field(default=None, ge=1, le=1000, description="inference steps; else the catalog's")
    window: int | None = Field(default=None, ge=1, le=2000, description="first denoiser calls to capture")
    guidance: float | None = Field(
        default=None, ge=0, le=100, description="classifier-free guidance scale; else the catalog's"
    )
    size: int | None = Field(default=None, ge=8, le=4096, multiple_of=8, description="height and width, pixels")
    sparsity: str | None = Field(default=None, description="share of each row that are candidates, 0.02 or 2%")
    t_hat: int | None = Field(default=None, ge=1, le=2000, description="first steps that vote")
    vote_share: float | None = Field(default=None, ge=0, lt=1, description="share of them that must agree")
    branch: Branch | None = Field(default=None, description="guidance halves whose energies count")
    prompts: str | None = Field(default=None, description="slots of both prompt sets that count, such as 0-9,15")
    kinds: str | None = Field(
        default=None, description="site kinds by commas: ffn, ffn_in, attn_k, attn_v, text; else the catalog's, or ffn"
    )
    include: str | None = Field(default=None, description="prune only sites so named, patterns by commas")
    exclude: str | None = Field(default=None, description="leave sites so named alone, patterns by commas")
    padding: bool | None = Field(default=None, description="whether padding tokens count in text encoders; else yes")
    evaluate: bool = Field(default=True, description="draw and judge images before and after")

    @property
    def model_spec(self) -> ModelSpec:
        """The model, with the bundled one's folder in place of "demo"."""
        path = str(demo.MODEL) if self.model == DEMO else self.model
        return ModelSpec(path, self.revision, self.dtype, self.device, self.variant, self.offload, self.slicing)

    @property
    def catalog_url(self) -> str:
        """The catalog's file. Raises ValueError if it is outside the places that the settings allow."""
        if self.catalog in BUNDLED:
            return str(BUNDLED[self.catalog])
        if self.catalog in builtin_names():
            return str(builtin_path(self.catalog))
        if (roots := Settings.read().catalog_roots) is not None:
            check_place(self.catalog, roots)
        return self.catalog

    @property
    def catalog_name(self) -> str:
        """What people call the catalog: its built-in name, or its file's."""
        return self.catalog.rstrip("/").rpartition("/")[2].partition(".")[0]

    @property
    def judge_path(self) -> Path:
        """The judge's folder."""
        return demo.JUDGE if self.judge == DEMO else Path(self.judge)


class Request(Common):
    """A run for one concept."""

    concept: str = Field(min_length=1, max_length=200, description="its slug in the catalog, such as fox")


class CatalogRequest(Common):
    """A run for a catalog's concepts, or for those that the store knows."""

    concepts: list[str] | None = Field(default=None, description="only these slugs; all if left out")
    workers: int = Field(
        default=0, ge=0, le=64, description="runs that share the capture, by Prefect's workers; 0 = this run captures"
    )

    def one(self, slug: str) -> Request:
        """The same for one concept."""
        return Request(concept=slug, **self.model_dump(exclude={"concepts", "workers"}))

    @classmethod
    def of(cls, request: Request) -> Self:
        """A request for one concept as one for several."""
        return cls(concepts=[request.concept], **request.model_dump(exclude={"concept"}))


class MaintenanceRequest(BaseModel):
    """What to look after in a store. Edits are always verified."""

    model_config = FORM

    store: str = Field(default="conceptprune-store", min_length=1, description="directory or s3://bucket/prefix")
    rankings_days: int | None = Field(
        default=None, ge=1, le=3650, description="delete rankings, a cache, that are older; left out, none are deleted"
    )
    leftovers: bool = Field(
        default=True, description="on a local disk: delete what killed writers left behind more than a day ago"
    )
    energies: Literal["skip", "check", "reset"] = Field(
        default="skip", description="read all energies; reset: prompts whose chunks are damaged are captured again"
    )
