"""Speaker verification networks in 1-8 bit codebooks, as standard `.tflite` files.

The names in `__init__.pyi` are imported when they are first used: `import tfq_sv` alone loads
neither TensorFlow nor LiteRT, so that tools which only run a finished file start at once.

    >>> import tfq_sv
    >>> model = tfq_sv.models.build("ResNet18", channels=4)
    >>> recipe = tfq_sv.QuantizationRecipe.uniform(model, bits=4)
    >>> quantized = tfq_sv.quantize(model, recipe)
"""

import os

import lazy_loader

from tfq_sv.errors import lazy_names

# tfmot wraps Keras 2 layers. TensorFlow reads this once, when it is first imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__version__ = "0.2.0"

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = lazy_names(__name__, _find)
__all__ += ["__version__"]
