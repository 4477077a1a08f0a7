"""A part of a recording that is an utterance of its own, as Kaldi's `segments` lists them."""

from dataclasses import dataclass
from pathlib import Path

from tfq_sv.data.shards import Member


@dataclass(frozen=True, slots=True)
class Segment:
    """From one second to another of a recording.

    Attributes:
        whole: the recording.
        start: in seconds.
        end: in seconds; None is the recording's end.
        channel: from 0; None is all of them, as for any recording.
        split: a recording of one channel is taken to be that channel already.

    >>> str(Segment(Path("call.wav"), 1.5, 4.0))
    'call.wav (1.50-4.00 s)'
    """

    whole: Path | Member
    start: float
    end: float | None
    channel: int | None = None
    split: bool = False

    @property
    def name(self) -> str:
        """The recording's."""
        return self.whole.name

    def __str__(self) -> str:
        end = "" if self.end is None else f"{self.end:.2f}"
        channel = "" if self.channel is None else f", channel {self.channel + 1}"
        return f"{self.whole} ({self.start:.2f}-{end} s{channel})"

    def part(self, start: float, seconds: float | None) -> tuple[float, float | None]:
        """Where a part of the segment is in the recording: its start and its length, in seconds."""
        if self.end is None:
            return self.start + start, seconds
        remaining = max(0.0, self.end - self.start - start)
        return self.start + start, remaining if seconds is None else min(seconds, remaining)
