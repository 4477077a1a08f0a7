"""The forms that a layer's kernel can have: k-means codebooks and trellis codes of some widths."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from tfq_sv import codebook
from tfq_sv.errors import InputError
from tfq_sv.quantization import trellis as codes
from tfq_sv.quantization.quantizers import kernel_attribute
from tfq_sv.quantization.recipe import LayerRecipe
from tfq_sv.quantization.trellis_quantizer import Trellis, fits

Form = int | str
"""The bits of a codebook, or the name of a trellis as in FORMAT.md: "trellis_2"."""

BITS = tuple(range(1, 9))
TRELLIS_BITS = (0.5, *BITS)


def forms(bits: Iterable[float] | None = None, *, trellis: bool = False) -> list[Form]:
    """Returns the forms to choose from: codebooks first, then trellises, each by bits.

    Args:
        bits: the widths; if None, 1-8, and 0.5 with a trellis.
        trellis: whether each width that a trellis has is offered as such too.

    Raises:
        InputError: a width that is neither a codebook's nor, with `trellis`, a trellis's; none.

    >>> forms([1, 2, 3], trellis=True)
    [1, 2, 3, 'trellis_1', 'trellis_2']
    """
    if bits is None:
        bits = TRELLIS_BITS if trellis else BITS
    widths = sorted(set(bits))
    if not widths:
        raise InputError("no bit width to choose from; give some of 1-8")
    coded = [width for width in widths if trellis and width in codes.WIDTHS]
    books: list[Form] = [codebook.check_bits(w) for w in widths if w >= 1 or w not in coded]
    return books + [f"trellis_{codes.check_bits(width):g}" for width in coded]


def form(entry: LayerRecipe) -> Form:
    """Returns the form of a recipe's layer; binary codebooks are those of 1 bit.

    >>> form(LayerRecipe("trellis", 0.5)), form(LayerRecipe("static_binary", 1))
    ('trellis_0.5', 1)
    """
    return f"trellis_{entry.bits:g}" if entry.kind == "trellis" else int(entry.bits)


def form_text(form: Form) -> str:
    """Returns a form for a message.

    >>> form_text(2), form_text("trellis_2")
    ('2 bits', 'trellis_2')
    """
    return form if isinstance(form, str) else f"{form} bits"


def recipe_for(layer: keras.layers.Layer, form: Form) -> LayerRecipe:
    """Returns how a layer has a form, as `QuantizationRecipe.trellis` does.

    A layer that cannot have a trellis, or does not gain by it, has a codebook of as many bits.

    >>> layer = keras.layers.Dense(8)
    >>> layer.build([None, 16])
    >>> recipe_for(layer, "trellis_2")
    LayerRecipe(kind='kmeans', bits=2)
    """
    if isinstance(form, int):
        return LayerRecipe("kmeans", form)
    bits = float(form.removeprefix("trellis_"))
    if fits(layer, bits):
        return LayerRecipe("trellis", codes.check_bits(bits))
    return LayerRecipe("kmeans", max(1, int(bits)))


def rounded(layer: keras.layers.Layer, form: Form) -> npt.NDArray[np.float32]:
    """Returns a layer's kernel as `quantize` rounds it to a form.

    >>> layer = keras.layers.Dense(1, use_bias=False)
    >>> layer.build([None, 4])
    >>> layer.set_weights([np.float32([[0], [1], [10], [11]])])
    >>> rounded(layer, 1).ravel().round(1).tolist()
    [0.5, 0.5, 10.5, 10.5]
    """
    kernel: npt.NDArray[Any] = getattr(layer, str(kernel_attribute(layer))).numpy()
    entry = recipe_for(layer, form)
    if entry.kind == "trellis":
        found, scales = Trellis.nearest(layer, kernel, entry.bits)
        return codes.TrellisCodebook(found, scales, entry.bits, kernel.shape).decode()
    centroids = codebook.fit_on_grid(kernel, int(entry.bits))
    return centroids[codebook.assign(kernel, centroids)]
