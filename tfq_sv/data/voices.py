"""Artificial voices: espeak-ng with a written voice file for each speaker.

The engine comes from the wheel `espeakng_loader` (`pip install 'tfq-sv[demo]'`). No TensorFlow.
"""

import ctypes
import importlib
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv.errors import InputError

RATE = 22050
"""Samples per second that espeak-ng gives."""

ACCENTS = (
    "en",
    "en-029",
    "en-GB-scotland",
    "en-GB-x-gbclan",
    "en-GB-x-gbcwmd",
    "en-GB-x-rp",
    "en-US",
)

# What English needs of the 19 MB that the wheel brings.
_DATA_FILES = ("phondata", "phonindex", "phontab", "intonations", "en_dict")

# Values of speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_BY_CHARACTER = 1
_UTF8 = 1
_SPEED, _PITCH, _PITCH_RANGE = 1, 3, 4


def draw_voice(rng: np.random.Generator, *, female: bool) -> str:
    """Draws a speaker; returns the text of his or her espeak-ng voice file.

    The spreads are narrow: with the channel and the day's variation of `tfq_sv.data.synthetic`
    on top, neighbours among a hundred voices are hard to tell apart.

    >>> text = draw_voice(np.random.default_rng(0), female=True)
    >>> "formant 1" in text, "flutter" in text
    (True, True)
    """
    accent = ACCENTS[rng.integers(len(ACCENTS))]
    language = Path(_loader().get_data_path(), "lang", "gmw", accent).read_text(encoding="utf-8")
    low = (165.0 if female else 88.0) * np.exp(rng.normal(0, 0.13))
    high = low * rng.uniform(1.3, 1.6)
    tract = (113 if female else 100) * np.exp(rng.normal(0, 0.035))
    formants = [
        f"formant {number} {_near(rng, tract, 2.5)} {_near(rng, 95, 8)} {_near(rng, 110, 10)}"
        for number in range(9)
    ]
    breath = " ".join(str(rng.integers(4)) for _ in range(8))
    # Source spectrum: level (of 255) at four frequencies in Hz.
    tone = [_near(rng, level, 12) for level in (170, 135, 110, 105)]
    stress = " ".join(str(_near(rng, level, 1)) for level in (17, 16, 19, 19, 19, 19, 21, 20))
    lines = [
        *(line for line in language.splitlines() if not line.startswith("maintainer")),
        f"pitch {low:.0f} {high:.0f}",
        *formants,
        f"speed {_near(rng, 97, 8)}",
        f"flutter {rng.integers(1, 8)}",
        f"roughness {rng.integers(0, 4)}",
        f"voicing {_near(rng, 100, 12)}",
        f"consonants {_near(rng, 92, 12)} {_near(rng, 100, 12)}",
        f"breath {breath}",
        f"tone 600 {tone[0]} 1200 {tone[1]} 2000 {tone[2]} 3000 {tone[3]}",
        f"stressAmp {stress}",
    ]
    return "\n".join(lines) + "\n"


class Engine:
    """An espeak-ng that has said nothing yet, with one voice.

    What espeak-ng says depends on what it said before, and terminating does not make it forget.
    So every engine loads a copy of the library of its own, whose state is always new: the same
    calls give the same samples, whatever this process did before. Copies stay in memory (0.8 MB
    each) until the process ends.

    Raises:
        InputError: espeakng_loader is missing, or espeak-ng does not start.

    >>> from contextlib import closing
    >>> with closing(Engine(draw_voice(np.random.default_rng(0), female=True))) as engine:
    ...     said = engine.say("good morning", seed=1)
    >>> said.dtype, said.size > RATE // 2
    (dtype('int16'), True)
    """

    def __init__(self, voice: str) -> None:
        """Starts an engine with a voice file's text, as draw_voice() gives it."""
        loader = _loader()
        # Read at the start alone, so the files need not stay.
        with tempfile.TemporaryDirectory(prefix="tfq-sv-", ignore_cleanup_errors=True) as folder:
            home = Path(folder)
            for name in _DATA_FILES:
                shutil.copyfile(Path(loader.get_data_path(), name), home / name)
            (home / "voices").mkdir()
            (home / "voices" / "speaker").write_text(voice, encoding="utf-8")
            self._espeak = ctypes.CDLL(str(shutil.copy(loader.get_library_path(), home)))
            rate = self._espeak.espeak_Initialize(
                _OUTPUT_SYNCHRONOUS, 0, folder.encode(), _DO_NOT_EXIT
            )
            if rate != RATE or self._espeak.espeak_SetVoiceByName(b"speaker") != 0:
                raise InputError(f"espeak-ng cannot start in {home}; set TMPDIR to a shorter path")
        self._blocks: list[npt.NDArray[np.int16]] = []
        # The library keeps only the pointer, so the callback must live as long as the engine.
        self._callback = _CALLBACK(self._receive)
        self._espeak.espeak_SetSynthCallback(self._callback)

    def say(
        self, text: str, *, seed: int, speed: int = 175, pitch: int = 50, pitch_range: int = 50
    ) -> npt.NDArray[np.int16]:
        """Returns the speech, int16 (samples,) at RATE.

        Args:
            text: English.
            seed: of the engine's noise, below 2**31.
            speed: words per minute, 80-450.
            pitch: 0-99; 50 is the voice's own.
            pitch_range: 0-99; 50 is the voice's own.
        """
        self._blocks.clear()
        self._espeak.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        for parameter, value in ((_SPEED, speed), (_PITCH, pitch), (_PITCH_RANGE, pitch_range)):
            self._espeak.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self._espeak.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, _BY_CHARACTER, 0, _UTF8, None, None
        )
        return np.concatenate(self._blocks)

    def close(self) -> None:
        """Ends the engine; it says nothing more."""
        self._espeak.espeak_Terminate()

    def _receive(self, samples: Any, count: int, events: int | None) -> int:
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def engine_version() -> str:
    """Returns the engine's version, as "1.52.0"; raises InputError if there is none."""
    info = ctypes.CDLL(_loader().get_library_path()).espeak_Info
    info.restype = ctypes.c_char_p
    return str(info(None).decode())


def _loader() -> ModuleType:
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError:
        raise InputError(
            "synthetic speech needs espeak-ng, which is missing: pip install 'tfq-sv[demo]'"
        ) from None


def _near(rng: np.random.Generator, mean: float, spread: float) -> int:
    return max(0, round(rng.normal(mean, spread)))
