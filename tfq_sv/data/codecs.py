"""Speech as phones and calls leave it: coded and decoded again by libsndfile, in memory."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from tfq_sv.data.audio import SAMPLE_RATE

Samples = npt.NDArray[np.float32]


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
        content = io.BytesIO()
        low = np.clip(_resampled(samples, SAMPLE_RATE, self.rate), -1, 1)
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
        decoded = decoded[self.delay : self.delay + len(low)]
        decoded = np.pad(decoded, (0, len(low) - len(decoded)))
        back = _resampled(decoded, rate, SAMPLE_RATE)[: len(samples)]
        return np.pad(back, (0, len(samples) - len(back)))


CODECS = {
    "G.711 a-law": Codec(8000, "WAV", "ALAW"),
    "G.711 mu-law": Codec(8000, "WAV", "ULAW"),
    "GSM 6.10": Codec(8000, "WAV", "GSM610"),
    # libsndfile: 6 + 250 (1 - compression) kbit/s.
    "Opus 16 kbit/s": Codec(SAMPLE_RATE, "OGG", "OPUS", compression=0.96),
    "Opus 8 kbit/s": Codec(SAMPLE_RATE, "OGG", "OPUS", compression=0.992),
    # The next of MPEG-2's bit rates. Its frames are too short for the tag that tells the delay:
    # 576 samples of the coder, 529 of the decoder.
    "MP3 32 kbit/s": Codec(
        SAMPLE_RATE, "MP3", "MPEG_LAYER_III", compression=0.842, constant=True, delay=1105
    ),
}
"""Those of telephony (G.711), mobile phones (GSM full rate), calls over the net and recorders."""


def _resampled(samples: Samples, rate: int, to: int) -> Samples:
    return samples if rate == to else np.asarray(soxr.resample(samples, rate, to), np.float32)
