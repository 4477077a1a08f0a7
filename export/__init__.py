"""Quantized networks as standard `.tflite` files, and the encoder that runs them on LiteRT.

The names in `__init__.pyi` are imported when they are first used: a program that only runs a
finished file never loads TensorFlow. FORMAT.md, beside this file, specifies what is written.
"""

import lazy_loader

from tfq_sv.errors import lazy_names

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = lazy_names(__name__, _find)
