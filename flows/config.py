"""Settings of the environment, and the request that a flow takes: plain values, no arrays, no secrets."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

import demo
from tasks.diffusion.spec import ModelSpec

DEMO = "demo"  # the bundled model, catalog and judge


class Settings(BaseSettings):
    """CONCEPTPRUNE_* variables: defaults of the command line's options."""

    model_config = SettingsConfigDict(env_prefix="CONCEPTPRUNE_")

    store: str = "conceptprune-store"
    catalog: str = DEMO
    model: str = DEMO
    judge: str = DEMO
    device: str = "auto"
    batch: int = Field(default=10, ge=1)  # prompts drawn at once

    @classmethod
    def read(cls) -> Settings:
        """The settings of this environment. Raises ValueError that names the variable."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = f"CONCEPTPRUNE_{first['loc'][0]}".upper()
            raise ValueError(f"{name} is {first['input']!r}: {first['msg']}") from None


class Request(BaseModel):
    """Everything that a run is asked for. What is None comes from the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concept: str
    store: str
    catalog: str = DEMO
    model: str = DEMO
    revision: str | None = None
    judge: str = DEMO
    dtype: str = "float32"
    device: str = "auto"
    batch: int = 10
    steps: int | None = None
    window: int | None = None
    guidance: float | None = None
    size: int | None = None
    sparsity: str | None = None
    t_hat: int | None = None
    vote_share: float | None = None
    branch: str | None = None
    evaluate: bool = True

    @property
    def model_spec(self) -> ModelSpec:
        """The model, with the bundled one's folder in place of "demo"."""
        path = str(demo.MODEL) if self.model == DEMO else self.model
        return ModelSpec(path, self.revision, self.dtype, self.device)

    @property
    def catalog_path(self) -> Path:
        """The catalog's file."""
        return demo.CATALOG if self.catalog == DEMO else Path(self.catalog)

    @property
    def judge_path(self) -> Path:
        """The judge's folder."""
        return demo.JUDGE if self.judge == DEMO else Path(self.judge)
