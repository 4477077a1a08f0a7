"""Bits per layer for any wanted file size: sensitivities, file sizes, and the search."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
