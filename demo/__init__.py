"""The bundled text-to-image model with its judge and its catalogs, and (demo.training) how they were made."""

from pathlib import Path

_HERE = Path(__file__).parent

MODEL = _HERE / "emoji"  # a diffusers pipeline
JUDGE = _HERE / "judge"  # a transformers image classifier
CATALOG = _HERE / "catalog.toml"
SHARED_CATALOG = _HERE / "shared.toml"  # 44 concepts, whose references are two sets
