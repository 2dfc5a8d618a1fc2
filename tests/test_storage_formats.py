"""mask.safetensors and delta.safetensors: bytes that others can read and that never vary."""

from __future__ import annotations

import io
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize, safe_open

from storage.masks import encode_masks, pack_mask, unpack_mask, write_deltas
from storage.tensors import decode, encode, widen


class Tracked(np.ndarray):
    """An array that can be told to be gone."""


ID = "0123456789abcdef"
SITE = "unet.mid.ff.net.2"
MASKS = {SITE: np.random.default_rng(0).random((4, 11)) < 0.3, "unet.a.ff.net.2": np.zeros((2, 8), bool)}
WEIGHT = np.arange(44, dtype="f4").reshape(4, 11) - 20


def encode_deltas(weights: dict[str, np.ndarray], dtype: str, edit: str) -> bytes:
    file = io.BytesIO()
    shapes = {site: (weight.shape[0], weight.shape[1]) for site, weight in weights.items()}
    write_deltas(file, shapes, lambda site: weights[site], dtype, edit)
    return file.getvalue()


def test_the_files_open_without_us(tmp_path: Path) -> None:
    (tmp_path / "mask.safetensors").write_bytes(encode_masks(MASKS, ID))
    with safe_open(tmp_path / "mask.safetensors", framework="np") as file:
        metadata = file.metadata()
        bits = file.get_tensor(SITE)
    assert (metadata["format"], metadata["version"], metadata["edit"]) == ("conceptprune-mask", "1", ID)
    width = json.loads(metadata["widths"])[SITE]
    np.testing.assert_array_equal(np.unpackbits(bits, axis=1)[:, :width].astype(bool), MASKS[SITE])
    [(name, delta)] = deserialize(encode_deltas({SITE: WEIGHT}, "bfloat16", ID))
    assert (name, delta["dtype"], delta["shape"]) == (f"{SITE}.weight", "BF16", [4, 11])
    assert (np.frombuffer(delta["data"], "<u2").astype("u4") << 16).view("f4").tolist() == WEIGHT.ravel().tolist()


def test_equal_tensors_give_equal_bytes() -> None:
    backwards = dict(reversed(MASKS.items()))
    assert encode_masks(backwards, ID) == encode_masks(MASKS, ID)  # safetensors' own writer shuffles its metadata


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_masks_survive_packing(width: int, rows: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, width)) < 0.5
    assert pack_mask(mask).shape == (rows, -(-width // 8))
    np.testing.assert_array_equal(unpack_mask(pack_mask(mask), width), mask)


def test_a_packed_mask_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[out, 3\]"):
        unpack_mask(pack_mask(MASKS[SITE]), 17)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_deltas_survive_in_the_models_dtype(dtype: str) -> None:
    weight = np.array([[0.0, -0.0, 1.5, -(2.0**-14)]], "f4")
    data = encode_deltas({SITE: weight}, dtype, ID)
    got = widen(decode(data)[0][f"{SITE}.weight"])
    np.testing.assert_array_equal(got.view("u4"), weight.view("u4"))
    assert encode_deltas({SITE: got}, dtype, ID) == data


@pytest.mark.parametrize(("dtype", "value"), [("bfloat16", 1.001), ("float16", 1e6), ("float16", 1e-9)])
def test_fault_10_a_delta_that_is_not_of_the_models_dtype_is_refused(dtype: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"the weights are not {dtype} values"):
        encode_deltas({SITE: np.array([[value]], "f4")}, dtype, ID)


def test_one_weight_is_in_memory_at_a_time(tmp_path: Path) -> None:
    alive: list[str] = []

    def weight(site: str) -> np.ndarray:
        assert not alive, "the one before is still held"
        array = np.zeros((4, 8), "f4").view(Tracked)
        alive.append(site)
        weakref.finalize(array, alive.remove, site)
        return array

    with (tmp_path / "delta").open("wb") as file:
        write_deltas(file, {f"unet.{i}": (4, 8) for i in range(5)}, weight, "float16", ID)
    assert len(decode((tmp_path / "delta").read_bytes())[0]) == 5


def test_a_weight_of_another_shape_than_announced_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tensor .*weight is float32 \(4, 11\); its layout says float32 \(4, 12\)"):
        write_deltas(io.BytesIO(), {SITE: (4, 12)}, lambda site: WEIGHT, "float32", ID)


@pytest.mark.parametrize("data", [b"", b"\x10", b"\x02\0\0\0\0\0\0\0[]", encode({"x": np.zeros(3, "u1")}, {})[:-1]])
def test_what_is_no_safetensors_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a safetensors file"):
        decode(data)
