"""From recordings to error rates: embeddings, scores, EER. No TensorFlow is needed for a file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
