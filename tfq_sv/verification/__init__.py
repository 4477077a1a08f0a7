"""Enrolled speakers and decisions about them, on LiteRT alone. ENROLMENT.md has the rules."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
