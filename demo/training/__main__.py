"""Trains the bundled model from scratch: python -m demo.training [--folder training].

Four stages, each kept in the folder when it is done; a stopped training goes on from its last checkpoint. On two cores
the autoencoder takes about 11 minutes, the judge 2, the denoiser 60, and less on a GPU (--device cuda, for this stage
alone). The results replace demo/emoji and demo/judge.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from diffusers import AutoencoderTiny

import demo
from demo.training import autoencoder, denoiser, emoji, export, judge

VARIANTS, HELD_OUT = 8, 4  # renderings of each object and style to learn from, and to test the judge on
AUTOENCODER_STEPS, JUDGE_STEPS = 900, 400


def main() -> None:
    """Run what is missing of all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("training"), help="where the stages are kept")
    parser.add_argument("--device", default="cpu", help="what trains the denoiser: cpu, cuda or mps (default: cpu)")
    options = parser.parse_args()
    emoji.fetch(options.folder / "icons")
    pictures = emoji.renderings(options.folder / "icons", VARIANTS, seed=0)
    vae = train_autoencoder(options.folder, pictures)
    train_judge(options.folder, pictures, vae)
    training = denoiser.Training(vae, pictures, denoiser.Recipe(), options.folder / "denoiser", options.device)
    training.run()
    export.save(export.pipeline(training, vae), options.folder / "emoji")
    for name, target in (("emoji", demo.MODEL), ("judge", demo.JUDGE)):
        shutil.copytree(options.folder / name, target, dirs_exist_ok=True)
    print(f"wrote {demo.MODEL} and {demo.JUDGE}; measure them with python -m demo.training.score, then write the card")


def train_autoencoder(folder: Path, pictures: np.ndarray) -> AutoencoderTiny:
    """The autoencoder, trained or taken from the folder."""
    if not (folder / "autoencoder").exists():
        vae, psnr = autoencoder.train(pictures, AUTOENCODER_STEPS)
        print(f"autoencoder: {psnr:.1f} dB")
        vae.save_pretrained(folder / "autoencoder")
    return AutoencoderTiny.from_pretrained(folder / "autoencoder")


def train_judge(folder: Path, pictures: np.ndarray, vae: AutoencoderTiny) -> None:
    """The judge, trained unless it is in the folder, with its accuracies beside it."""
    if (folder / "judge").exists():
        return
    held_out = emoji.renderings(folder / "icons", HELD_OUT, seed=1)
    model, (objects, styles) = judge.train(pictures, held_out, vae, JUDGE_STEPS)
    print(f"judge: {objects:.1%} of objects, {styles:.1%} of styles")
    model.half().save_pretrained(folder / "judge")
    (folder / "judge" / "accuracy.json").write_text(json.dumps({"objects": objects, "styles": styles}))


if __name__ == "__main__":
    main()
