"""Trellis codes: rows, paths, brute force, k-means as the case without memory."""

import numpy as np
import pytest

from tfq_sv import codebook
from tfq_sv.errors import InputError
from tfq_sv.quantization import trellis

FORMS = {0.5: (1, 2), 1: (1, 1), 2: (2, 1), 4: (4, 1)}  # bits: (bits of a code, weights of a code)


def random_table(bits: float, seed: int = 0) -> np.ndarray:
    step, values = FORMS[bits]
    return np.random.default_rng(seed).normal(size=(2 ** (step + 8), values)).astype(np.float32)


def read_bit_by_bit(codes: np.ndarray, table: np.ndarray, bits: float) -> np.ndarray:
    """Decodes with one window at a time, as the format's text says."""
    step, values = FORMS[bits]
    kernel = np.empty((len(codes), codes.shape[1] * trellis.block(bits)), table.dtype)
    for (channel, column), own in np.ndenumerate(codes):
        word = int(codes[channel - 1, column]) + 256 * int(own)
        for cell in range(8 // step):
            window = word >> cell * step & 2 ** (step + 8) - 1
            start = column * trellis.block(bits) + cell * values
            kernel[channel, start : start + values] = table[window]
    return kernel


def coupled_errors(kernel: np.ndarray, decoded: np.ndarray, coupling: np.ndarray) -> np.ndarray:
    errors = np.zeros(kernel.shape)
    for j in range(kernel.shape[1]):
        errors[:, j] = kernel[:, j] - errors[:, :j] @ coupling[j, :j] - decoded[:, j]
    return errors


@pytest.mark.parametrize("bits", trellis.WIDTHS)
def test_decoding_reads_windows_of_words(bits: float) -> None:
    table = random_table(bits)
    codes = np.random.default_rng(1).integers(0, 256, (5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(trellis.decode(codes, table), read_bit_by_bit(codes, table, bits))


@pytest.mark.parametrize("bits", trellis.WIDTHS)
@pytest.mark.parametrize("channels", [1, 2, 7, 40])
def test_what_codes_stand_for_is_encoded_as_these_codes(bits: float, channels: int) -> None:
    """An error of zero can be reached: no other path is as good, whatever the start."""
    table = random_table(bits)
    codes = np.random.default_rng(channels).integers(0, 256, (channels, 4)).astype(np.uint8)
    found = trellis.encode(trellis.decode(codes, table), table)
    if channels >= 7:  # shorter paths close before the search has settled
        np.testing.assert_array_equal(found, codes)
    else:
        assert found.shape == codes.shape


@pytest.mark.parametrize("bits", trellis.WIDTHS)
@pytest.mark.parametrize("coupled", [False, True])
def test_no_path_through_the_last_byte_is_better(bits: float, coupled: bool) -> None:
    rng, width = np.random.default_rng(3), trellis.block(bits)
    table, kernel = random_table(bits), rng.normal(size=(2, width))
    coupling = np.tril(rng.normal(0, 0.3, (width, width)), -1) * coupled
    importance = rng.uniform(0.5, 2, width)
    found = trellis.encode(kernel, table, coupling, importance)
    every = np.uint8([[[first], [found[1, 0]]] for first in range(256)])
    words = np.stack([trellis.words(codes) for codes in every])
    losses = [
        np.sum(importance * coupled_errors(kernel, decoded.reshape(2, -1), coupling) ** 2)
        for decoded in trellis.rows(table)[words]
    ]
    best = np.argmin(losses)
    if coupled:  # one path per state is followed, which is not all that matters then
        mine = losses[int(found[0, 0])]
        assert mine <= np.sort(losses)[2]
    else:
        np.testing.assert_array_equal(found, every[best])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_table_without_memory_is_k_means(bits: int) -> None:
    kernel = np.random.default_rng(4).normal(size=(24, 32)).astype(np.float32)
    centroids = codebook.fit(kernel, bits)
    table = np.repeat(centroids, 256)[:, None]  # by the newest code alone
    decoded = trellis.decode(trellis.encode(kernel, table), table)
    np.testing.assert_array_equal(decoded, centroids[codebook.assign(kernel, centroids)])


@pytest.mark.parametrize(("bits", "decibels"), [(0.5, 2.6), (1, 5.3), (2, 10.9), (4, 21.0)])
def test_gaussian_weights_come_near_the_rate_distortion_bound(bits: float, decibels: float) -> None:
    rng = np.random.default_rng(5)
    kernel = rng.normal(size=(128, 128)) * rng.uniform(0.01, 3, (128, 1))
    codes, scales = trellis.fit(kernel, bits)
    assert codes.nbytes == kernel.size * bits / 8
    error = (kernel - trellis.decode(codes, trellis.table(bits)) * scales) / scales
    snr = 10 * np.log10(np.sum((kernel / scales) ** 2) / np.sum(error**2))
    assert decibels < snr < 20 * bits * np.log10(2)


@pytest.mark.parametrize("bits", [1, 2])
def test_short_paths_lose_nothing(bits: int) -> None:
    weights = np.random.default_rng(6).normal(size=(256, 256))
    losses = []
    for channels in (16, 256):
        kernel = weights.reshape(channels, -1)
        codes, scales = trellis.fit(kernel, bits)
        losses.append(np.mean((kernel - trellis.decode(codes, trellis.table(bits)) * scales) ** 2))
    assert losses[0] < 1.02 * losses[1]


def test_a_kernel_of_zeros_stays_finite() -> None:
    codes, scales = trellis.fit(np.zeros((4, 8)), bits=2)
    assert codes.shape == (4, 2)
    assert np.isfinite(scales).all()


def test_columns_are_independent() -> None:
    kernel, table = np.random.default_rng(7).normal(size=(20, 12)), random_table(2)
    whole = trellis.encode(kernel, table)
    parts = [trellis.encode(kernel[:, start : start + 4], table) for start in (0, 4, 8)]
    np.testing.assert_array_equal(whole, np.hstack(parts))


@pytest.mark.parametrize("bits", [0, 3, 8, True, "2"])
def test_other_widths_are_refused(bits: object) -> None:
    with pytest.raises(InputError, match=r"0\.5, 1, 2 or 4"):
        trellis.check_bits(bits)  # type: ignore[arg-type]


def test_kernels_that_do_not_fill_bytes_or_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="9 inputs do not fill bytes of 4 weights"):
        trellis.fit(np.ones((2, 9)), bits=2)
    with pytest.raises(InputError, match="NaN or infinite"):
        trellis.fit(np.full((2, 8), np.nan), bits=2)
