"""SpeakerVerifier: knows enrolled speakers again. LiteRT alone, no TensorFlow."""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from tfq_sv.data import audio
from tfq_sv.data.speech_check import no_speech
from tfq_sv.errors import InputError
from tfq_sv.evaluation.score_calibration import Calibration
from tfq_sv.export.encoder import SpeakerEncoder
from tfq_sv.features import check_level
from tfq_sv.verification import agreement, decision, enrolment_file, quality
from tfq_sv.verification.decision import OPERATING_POINT, Identification, Verification
from tfq_sv.verification.enrolment_file import Reference

Recording = str | os.PathLike[str] | npt.NDArray[np.floating] | Sequence[float]
"""A file of any format that `data.audio` reads, or samples (N,) at 16 kHz in [-1, 1]."""


class SpeakerVerifier:
    """Enrolled speakers, and whether a voice is theirs. ENROLMENT.md has the rules.

    Threads may share one.

    >>> verifier = SpeakerVerifier("speaker.tflite")  # doctest: +SKIP
    >>> verifier.enroll("ann", ["ann-1.wav", "ann-2.wav", "ann-3.wav"])  # doctest: +SKIP
    >>> verifier.verify("ann", "door.wav").accepted  # doctest: +SKIP
    True
    >>> verifier.identify("door.wav").speaker  # None if it is nobody's  # doctest: +SKIP
    'ann'
    >>> verifier.save("speakers.json")  # doctest: +SKIP
    """

    def __init__(
        self, path: str | os.PathLike[str], fast: bool = True, num_threads: int = 1
    ) -> None:
        """Opens a network, as SpeakerEncoder does; nobody is enrolled yet.

        Raises:
            InputError: no such file; it is damaged, or is not one of ours.
        """
        self._encoder = SpeakerEncoder(path, fast, num_threads, check_speech=False)
        self._file = str(path)
        # Replaced as a whole, so that readers see everyone of before or everyone of after a change;
        # one change at a time, so that none is lost.
        self._speakers: dict[str, list[Reference]] = {}
        self._changes = Lock()

    @property
    def encoder(self) -> SpeakerEncoder:
        """The network."""
        return self._encoder

    @property
    def names(self) -> list[str]:
        """Who is enrolled, in alphabetical order."""
        return sorted(self._speakers)

    def enroll(self, name: str, recordings: Sequence[Recording], *, check: bool = True) -> None:
        """Enrolls a speaker by some recordings; replaces one of that name.

        Three recordings or more are best, each of some seconds: only then one that is another
        person's can be told.

        Args:
            name: any text.
            recordings: files, or samples; see `Recording`.
            check: refuse recordings with little speech, too quiet or clipped ones, and one that
                does not fit the others. Without, only what cannot be used at all is refused.

        Raises:
            InputError: a recording that is refused: which, why, and its figure. Then nothing has
                changed.
        """
        enrolment_file.check_name(name)
        labels, waveforms = _read_all(recordings)
        if not waveforms:
            raise InputError(f"{name}: no recording to enroll; give one or more, best three")
        if check:
            for label, samples in zip(labels, waveforms, strict=True):
                if reason := quality.problem(samples):
                    raise InputError(f"{label}: {reason}; record again")
        embeddings = [
            self._embed(samples, label) for label, samples in zip(labels, waveforms, strict=True)
        ]
        if check:
            least = agreement.least_score(self._encoder.threshold)
            reason = agreement.problem(labels, np.array(embeddings), least)
            if reason:
                raise InputError(f"{name}: {reason}")
        references = [
            Reference(embedding, quality.measure(samples).seconds)
            for embedding, samples in zip(embeddings, waveforms, strict=True)
        ]
        with self._changes:
            self._speakers = {**self._speakers, name: references}

    def remove(self, name: str) -> bool:
        """Forgets a speaker; False if there was none of that name."""
        with self._changes:
            known = name in self._speakers
            self._speakers = {one: kept for one, kept in self._speakers.items() if one != name}
        return known

    def verify(
        self, name: str, recording: Recording, threshold: str | float = OPERATING_POINT
    ) -> Verification:
        """Compares a voice with one enrolled speaker.

        Args:
            name: who it should be.
            recording: a file, or samples.
            threshold: an operating point that the network's file holds ("eer", "far_1e-2",
                "far_1e-3"), or a score.

        Raises:
            InputError: nobody of that name; no such threshold; a recording that cannot be used.
        """
        at = decision.find_threshold(self._encoder.about, threshold, self._file)
        references = self._speakers.get(name)
        if references is None:
            there = ", ".join(self.names)
            who = f"there are {there}" if there else "nobody is: enroll first"
            raise InputError(f"{name} is not enrolled; {who}")
        samples = _read(recording, _label(recording))
        score = decision.score(_matrix(references), self._embed(samples, _label(recording)))
        calibration = Calibration.of_file(self._encoder.about)
        llr = None
        if calibration:
            seconds = quality.measure(samples).seconds
            llr = float(calibration.llr(score, seconds, len(references)))
        return Verification(name, score, at, no_speech(samples), llr=llr)

    def identify(
        self, recording: Recording, threshold: str | float = OPERATING_POINT
    ) -> Identification:
        """Finds the enrolled speaker that a voice is most like; it may be a stranger's.

        Of many speakers one is easily like a stranger: the more are enrolled, the stricter the
        threshold should be.

        Args:
            recording: a file, or samples.
            threshold: as for `verify`.

        Raises:
            InputError: nobody is enrolled; no such threshold; a recording that cannot be used.
        """
        at = decision.find_threshold(self._encoder.about, threshold, self._file)
        speakers = {name: _matrix(references) for name, references in self._speakers.items()}
        if not speakers:
            raise InputError("nobody is enrolled; enroll first")
        samples = _read(recording, _label(recording))
        test = self._embed(samples, _label(recording))
        return decision.best(speakers, test, at, no_speech(samples))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the enrolled speakers to a file, at once or not at all. They are biometric data.

        Raises:
            InputError: it cannot be written.
        """
        about = self._encoder.about
        enrolment_file.write(path, self._speakers, about["inflated_sha256"], about["embed_dim"])

    def load(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save` wrote, here, on Android or in a browser, in place of who is enrolled.

        Raises:
            InputError: no such file; it is damaged, of another network, or of a newer version.
        """
        about = self._encoder.about
        speakers = enrolment_file.read(path, about["inflated_sha256"], about["embed_dim"])
        with self._changes:
            self._speakers = speakers

    def _embed(self, samples: npt.NDArray[np.float32], label: str) -> npt.NDArray[np.float32]:
        try:
            return decision.unit(self._encoder.embed(samples))
        except InputError as error:
            raise InputError(f"{label}: {error}") from None


def _matrix(references: Sequence[Reference]) -> npt.NDArray[np.float32]:
    return np.array([one.embedding for one in references])


def _read_all(recordings: Sequence[Recording]) -> tuple[list[str], list[npt.NDArray[np.float32]]]:
    """What messages call each recording, and its samples."""
    if isinstance(recordings, str | os.PathLike) or getattr(recordings, "ndim", 2) == 1:
        raise InputError("recordings is a list of them; for one, give a list of one")
    try:
        listed = list(recordings)
    except TypeError:
        raise InputError(f"recordings is a list of them, not {recordings!r:.60}") from None
    labels = [_label(one, f" {number}") for number, one in enumerate(listed, 1)]
    return labels, [_read(one, label) for one, label in zip(listed, labels, strict=True)]


def _label(recording: Recording, number: str = "") -> str:
    if isinstance(recording, str | os.PathLike):
        return str(recording)
    return f"recording{number}"


def _read(recording: Recording, label: str) -> npt.NDArray[np.float32]:
    if isinstance(recording, str | os.PathLike):
        return audio.read(Path(recording)).samples  # whose errors name it
    wrong = InputError(f"{label}: a recording is a file, or samples of the shape (N,)")
    try:
        samples = np.asarray(recording, np.float32)
    except (TypeError, ValueError):
        raise wrong from None
    if samples.ndim != 1:
        raise wrong
    try:
        check_level(samples)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    return samples
