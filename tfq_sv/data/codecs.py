"""Speech as phones and calls leave it: coded and decoded again, in memory.

libsndfile does it, and PyAV's FFmpeg does AMR, where PyAV is installed (`tfq-sv[aac]`) and holds
OpenCORE's encoder: PyPI's builds up to 18 do, 19.0 does not.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from tfq_sv.data.audio import SAMPLE_RATE

Samples = npt.NDArray[np.float32]

AMR = "AMR 12.2 kbit/s"
"""Left out of `CODECS` where PyAV is not installed, or lacks the encoder."""


@dataclass(frozen=True)
class Codec:
    """How speech is coded.

    Attributes:
        rate: samples per second on the way; what lies above half of it is lost.
        container: libsndfile's format.
        subtype: libsndfile's.
        compression: from 0 to 1, which libsndfile turns into a bit rate; None where there is one.
        constant: whether the bit rate is constant.
        delay: samples that the decoder puts before the speech, where the file does not say so.
    """

    rate: int
    container: str
    subtype: str
    compression: float | None = None
    constant: bool = False
    delay: int = 0

    def __call__(self, samples: Samples) -> Samples:
        """Samples at 16 kHz (N,) -> (N,): coded, decoded, and in time with what came in.

        >>> CODECS["GSM 6.10"](np.zeros(500, np.float32)).shape
        (500,)
        """
        return _through_codec(samples, self.rate, self.delay, self._coded)

    def _coded(self, low: Samples) -> tuple[Samples, int]:
        content = io.BytesIO()
        soundfile.write(
            content,
            low,
            self.rate,
            subtype=self.subtype,
            format=self.container,
            compression_level=self.compression,
            bitrate_mode="CONSTANT" if self.constant else None,
        )
        content.seek(0)
        decoded, rate = soundfile.read(content, dtype="float32")
        return decoded, rate


@dataclass(frozen=True)
class Amr:
    """AMR narrow-band (3GPP TS 26.090), the codec of mobile telephony, by OpenCORE's encoder.

    Attributes:
        bit_rate: bits per second, one of the standard's eight.
    """

    bit_rate: int
    rate = 8000
    delay = 40  # that the encoder looks ahead

    def __call__(self, samples: Samples) -> Samples:
        """Samples at 16 kHz (N,) -> (N,): coded, decoded, and in time with what came in."""
        return _through_codec(samples, self.rate, self.delay, self._coded)

    def _coded(self, low: Samples) -> tuple[Samples, int]:
        import av

        content = io.BytesIO()
        # The end of the speech would be lost without the frames that the delay pushes out.
        whole = np.pad(low, (0, self.delay + -(len(low) + self.delay) % 160))
        pcm = np.round(np.minimum(whole, 32767 / 32768) * 32768).astype(np.int16)
        with av.open(content, "w", format="amr") as container:
            stream = container.add_stream("libopencore_amrnb", rate=self.rate, layout="mono")
            stream.bit_rate = self.bit_rate
            for part in pcm.reshape(-1, 1, 160):
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                frame.sample_rate = self.rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        content.seek(0)
        with av.open(content, format="amr") as container:
            parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        return np.concatenate(parts), self.rate


def _amr() -> dict[str, Callable[[Samples], Samples]]:
    """Nothing where PyAV is not installed, or is built without the encoder."""
    if find_spec("av") is None:
        return {}
    import av

    known = "libopencore_amrnb" in av.codecs_available
    return {AMR: Amr(12200)} if known else {}


def _through_codec(
    samples: Samples, rate: int, delay: int, coded: Callable[[Samples], tuple[Samples, int]]
) -> Samples:
    """Samples at 16 kHz (N,) -> (N,) through a codec of another rate, in time."""
    low = np.clip(_resampled(samples, SAMPLE_RATE, rate), -1, 1)
    decoded, given = coded(low)
    decoded = decoded[delay : delay + len(low)]
    decoded = np.pad(decoded, (0, len(low) - len(decoded)))
    back = _resampled(decoded, given, SAMPLE_RATE)[: len(samples)]
    return np.pad(back, (0, len(samples) - len(back)))


CODECS: dict[str, Callable[[Samples], Samples]] = {
    "G.711 a-law": Codec(8000, "WAV", "ALAW"),
    "G.711 mu-law": Codec(8000, "WAV", "ULAW"),
    "GSM 6.10": Codec(8000, "WAV", "GSM610"),
    **_amr(),
    # libsndfile: 6 + 250 (1 - compression) kbit/s.
    "Opus 16 kbit/s": Codec(SAMPLE_RATE, "OGG", "OPUS", compression=0.96),
    "Opus 8 kbit/s": Codec(SAMPLE_RATE, "OGG", "OPUS", compression=0.992),
    # The next of MPEG-2's bit rates. Its frames are too short for the tag that tells the delay:
    # 576 samples of the coder, 529 of the decoder.
    "MP3 32 kbit/s": Codec(
        SAMPLE_RATE, "MP3", "MPEG_LAYER_III", compression=0.842, constant=True, delay=1105
    ),
}
"""Those of telephony (G.711), mobile phones (GSM, AMR), calls over the net and recorders."""


def _resampled(samples: Samples, rate: int, to: int) -> Samples:
    return samples if rate == to else np.asarray(soxr.resample(samples, rate, to), np.float32)
