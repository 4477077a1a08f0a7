import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_sv import codec
from tfq_sv.errors import InputError


@given(
    bits=st.integers(1, 8),
    count=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_unpack_inverts_pack_in_exactly_b_bits_a_code(bits: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, count).astype(np.uint8)
    packed = codec.pack(codes, bits)
    np.testing.assert_array_equal(codec.unpack(packed, bits, count), codes)
    widths = codec.planes(bits)
    whole = count + -count % (8 // widths[-1])
    assert [plane.size * 8 for plane in packed] == [whole * width for width in widths]


@pytest.mark.parametrize("bits", range(1, 9))
def test_planes_add_up_and_divide_a_byte(bits: int) -> None:
    widths = codec.planes(bits)
    assert sum(widths) == bits
    assert all(8 % width == 0 for width in widths)


def test_first_code_is_in_the_lowest_bits() -> None:
    codes = np.array([1, 0, 0, 0, 0, 0, 0, 0, 1], np.uint8)
    assert codec.pack(codes, 1)[0].tolist() == [1, 1]


def test_low_bits_are_in_the_first_plane() -> None:
    low, high = codec.pack(np.array([0b101], np.uint8), 3)
    assert (low.tolist(), high.tolist()) == ([0b01, 0], [0b1])


@pytest.mark.parametrize("bits", [0, 9, True, 2.0])
def test_refuses_bits_that_no_codebook_has(bits: int) -> None:
    with pytest.raises(InputError, match="1 to 8"):
        codec.pack(np.zeros(4, np.uint8), bits)
