"""The demo's pictures: emoji of four open fonts, drawn on plain backgrounds.

Each iconify package is one artistic style; a name that is in all four packages is one object. `npm pack` fetches the
packages (see `fetch`), resvg renders them, and small shifts and scalings make several renderings of each.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

SIZE = 32  # px, side of a picture
SUPERSAMPLE = 3  # rendered this much larger, then averaged down

PACKAGES = {  # style: npm package and the version that was used
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
    "blob": "@iconify-json/noto-v1@1.2.5",
}
STYLES = tuple(PACKAGES)

BACKGROUNDS = {  # name: RGB in 0..255
    "white": (255, 255, 255),
    "black": (24, 24, 28),
    "green": (60, 150, 80),
    "blue": (70, 110, 200),
    "yellow": (250, 215, 90),
}

OBJECTS = {  # the word in a caption: the icon's name
    "cat": "cat-face", "dog": "dog-face", "fox": "fox", "panda": "panda", "lion": "lion", "frog": "frog",
    "monkey": "monkey-face", "penguin": "penguin", "owl": "owl", "unicorn": "unicorn", "honeybee": "honeybee",
    "butterfly": "butterfly", "turtle": "turtle", "octopus": "octopus", "crab": "crab", "elephant": "elephant",
    "whale": "whale", "rabbit": "rabbit-face", "pig": "pig-face", "apple": "red-apple", "lemon": "lemon",
    "banana": "banana", "watermelon": "watermelon", "grapes": "grapes", "strawberry": "strawberry",
    "carrot": "carrot", "eggplant": "eggplant", "pineapple": "pineapple", "pizza": "pizza",
    "hamburger": "hamburger", "doughnut": "doughnut", "cake": "birthday-cake", "football": "soccer-ball",
    "guitar": "guitar", "violin": "violin", "car": "automobile", "bus": "bus", "tractor": "tractor",
    "bicycle": "bicycle", "airplane": "airplane", "rocket": "rocket", "house": "house", "tent": "tent",
    "sun": "sun", "snowman": "snowman", "rose": "rose", "cactus": "cactus", "tree": "evergreen-tree",
    "mushroom": "mushroom", "crown": "crown", "umbrella": "umbrella", "robot": "robot",
}  # fmt: skip


def fetch(folder: Path) -> None:
    """Download and unpack the four icon packages into `folder` with npm; what is already there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for style, package in PACKAGES.items():
        target = folder / style
        if (target / "icons.json").exists():
            continue
        target.mkdir(exist_ok=True)
        done = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(folder / done.stdout.strip().splitlines()[-1]) as archive:
            icons = archive.extractfile("package/icons.json")
            assert icons is not None
            (target / "icons.json").write_bytes(icons.read())


def svg(package: dict, name: str) -> str:
    """A stand-alone SVG of one icon of an iconify package (format: iconify.design/docs/types/iconify-json.html)."""
    icon = package["icons"][name]
    left, top, width, height = (
        icon.get(key, package.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


def jittered(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """One rendering, shifted by up to 1.5 px and scaled by up to 6 %: [4, SIZE, SIZE] float32, premultiplied RGBA."""
    big = SIZE * SUPERSAMPLE
    zoom = 1.08 + rng.uniform(-0.06, 0.06)
    dx, dy = rng.uniform(-1.5, 1.5, 2) * SUPERSAMPLE
    centre = big / 2
    matrix = (zoom, 0, centre - zoom * (centre + dx), 0, zoom, centre - zoom * (centre + dy))
    rgba = np.asarray(picture.transform((big, big), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC), "f4")
    rgba = rgba.transpose(2, 0, 1) / 255
    rgba[:3] *= rgba[3:]
    return rgba.reshape(4, SIZE, SUPERSAMPLE, SIZE, SUPERSAMPLE).mean((2, 4)).clip(0, 1)


def renderings(folder: Path, variants: int, seed: int) -> np.ndarray:
    """Every object in every style: [object, style, variant, 4, SIZE, SIZE] float32, premultiplied RGBA in 0..1."""
    rng = np.random.default_rng(seed)
    big = SIZE * SUPERSAMPLE
    out = np.empty((len(OBJECTS), len(STYLES), variants, 4, SIZE, SIZE), np.float32)
    for s, style in enumerate(STYLES):
        package = json.loads((folder / style / "icons.json").read_text())
        for o, name in enumerate(OBJECTS.values()):
            png = resvg_py.svg_to_bytes(svg_string=svg(package, name), width=big, height=big)
            picture = Image.open(io.BytesIO(bytes(png))).convert("RGBa").resize((big, big))
            picture = picture.convert("RGBA")
            for v in range(variants):
                out[o, s, v] = jittered(picture, rng)
    return out


def on_background(rgba: np.ndarray, background: str) -> np.ndarray:
    """Premultiplied RGBA [..., 4, H, W] over a plain colour: [..., 3, H, W] float32 in -1..1."""
    colour = np.array(BACKGROUNDS[background], np.float32)[:, None, None] / 255
    return (rgba[..., :3, :, :] + (1 - rgba[..., 3:, :, :]) * colour) * 2 - 1
