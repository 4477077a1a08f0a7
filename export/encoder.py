"""SpeakerEncoder: speech in, embedding out, on LiteRT alone."""

import hashlib
import importlib
import os
import warnings
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from tfq_sv import features, files, windows
from tfq_sv.data.speech_check import no_speech
from tfq_sv.errors import InputError
from tfq_sv.export import about, cache, seal
from tfq_sv.features import FbankOptions

_RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow")
_REQUEST = np.zeros(1, np.int32)


class SpeakerEncoder:
    """Runs a file that `export_tflite` or `tfq-sv inflate` wrote.

    Threads may share one; they take turns.

    >>> encoder = SpeakerEncoder("speaker.tflite")  # doctest: +SKIP
    >>> encoder.embed(waveform).shape  # doctest: +SKIP
    (256,)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fast: bool = True,
        num_threads: int = 1,
        *,
        check_speech: bool = True,
    ) -> None:
        """Opens a file.

        Args:
            path: the file.
            fast: inflate the weights to int8, once (the result is kept, see `cache.folder`), and
                run as fast as any int8 network; else they are decoded again for each embedding, in
                a small memory. A file that `tfq-sv inflate` wrote runs as it is.
            num_threads: how many threads the interpreter may use.
            check_speech: warn of waveforms that are hum, noise, a tone or a click (`UserWarning`).

        Raises:
            InputError: no such file; it is damaged, or is not one of ours.
        """
        data = _checked(path)
        packed = interpreter(data, num_threads)
        self._about = _about(packed, path)
        network = packed
        if fast and not self._about.get("form"):
            sha256 = self._about["inflated_sha256"]
            inflated = cache.fetch(sha256, lambda: _inflate(packed, sha256, path))
            network = interpreter(inflated, num_threads)
        self._lock, self._check_speech = Lock(), check_speech
        self._run = network.get_signature_runner("embed")

    @property
    def about(self) -> dict[str, Any]:
        """The file's metadata."""
        return self._about

    @property
    def threshold(self) -> float | None:
        """The cosine above which two embeddings are of one voice, at the EER; None if not known."""
        thresholds = self._about.get("thresholds") or {}
        found = (thresholds.get("eer") or {}).get("threshold")
        return None if found is None else float(found)

    def embed(self, waveform: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Computes an embedding.

        Args:
            waveform: at 16 kHz in [-1, 1], (N,). A file that was exported with input="features"
                takes these as well, (T, feat_dim); it computes them from a waveform by the front
                end that its metadata names. Of more than a minute, the mean of windows is taken
                (and a `UserWarning` says so), see `tfq_sv.windows`.

        Returns:
            float32 (embed_dim,).

        Raises:
            InputError: another shape, no numbers, NaN, samples far outside [-1, 1], or less or more
                speech than the network or the memory can take.
        """
        try:
            given = np.asarray(waveform)
            if given.dtype.kind not in "fiO" or waveform is None:
                raise TypeError(given.dtype)
            values = given.astype(np.float32)
        except (TypeError, ValueError):
            raise InputError("a waveform is one array of numbers, of the shape (N,)") from None
        if not np.isfinite(values).all():
            raise InputError("the waveform has values that are NaN or infinite")
        if values.ndim == 1:
            self._check_waveform(values)
            rate = self._about["sample_rate"]
        else:
            self._check_features(values)
            rate = _frame_rate(self._about)
        return windows.embed(self._embed, values, rate)

    def _embed(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Embeds a window of a waveform, or of features."""
        entry, inputs = self._about["input"], values
        unit, second = "frames", _frame_rate(self._about)
        if values.ndim == 1:
            unit, second = "samples", self._about["sample_rate"]
            if entry == "features":
                inputs = features.fbank(values, FbankOptions(**self._about["frontend"]))
        too_little = f"{len(values)} {unit} are too few for this network; give more speech"
        try:
            with self._lock:  # an interpreter has one set of tensors
                embedding = np.array(self._run(**{entry: inputs[None]})["embedding"][0], np.float32)
        except (RuntimeError, MemoryError) as error:
            # It only says which node failed. No network needs a whole second.
            if len(values) < second:
                raise InputError(too_little) from error
            reason = " ".join(str(error).split())[-160:] or type(error).__name__
            raise InputError(
                f"the runtime could not take {len(values)} {unit} ({reason}): too long, or out of "
                "memory"
            ) from error
        if not (np.isfinite(embedding).all() and embedding.any()):
            dead = "the network answers zero or NaN to this speech; check its last layers"
            raise InputError(dead if len(values) >= second else too_little)
        return embedding

    def _check_waveform(self, values: npt.NDArray[np.float32]) -> None:
        about = self._about
        if about["input"] == "features" and not about.get("frontend"):
            raise InputError("the file names no front end; give features, not a waveform")
        least, rate = about.get("min_samples") or 0, about["sample_rate"]
        if values.size < least:
            raise InputError(
                f"{values.size} samples are too few; give at least {least} ({least / rate:g} s)"
            )
        features.check_level(values)
        self._warn(values)

    def _check_features(self, values: npt.NDArray[np.float32]) -> None:
        width = self._about["feat_dim"]
        if self._about["input"] == "waveform":
            raise InputError(
                f"a waveform has the shape (N,), not {values.shape}; the front end is in the file"
            )
        if values.ndim != 2 or values.shape[1] != width or not len(values):
            raise InputError(
                f"a waveform has the shape (N,), features (T, {width}), not {values.shape}"
            )

    def _warn(self, waveform: npt.NDArray[np.float32]) -> None:
        reason = no_speech(waveform) if self._check_speech else ""
        if reason:
            warnings.warn(f"perhaps no speech: {reason}", UserWarning, stacklevel=4)


def _frame_rate(about: dict[str, Any]) -> int:
    """Frames of features per second."""
    front_end = about.get("frontend")
    known = front_end if about["input"] == "features" else None
    shift = FbankOptions(**known).frame_shift if known else 160
    return max(1, about["sample_rate"] // shift)


def inflate(path: str | os.PathLike[str]) -> bytes:
    """Returns the fast `.tflite` that a file holds: the same network with plain int8 weights.

    Raises:
        InputError: no such file; it is damaged, or is not one of ours; what came out has another
            hash than the metadata say.
    """
    packed = interpreter(_checked(path))
    about = _about(packed, path)
    if about.get("form"):
        raise InputError(f"{path} is inflated already, to {about['form']}; give the packed file")
    return _inflate(packed, about["inflated_sha256"], path)


def read_about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns a file's metadata.

    Raises:
        InputError: no such file; it is damaged, or is not one of ours.
    """
    return _about(interpreter(_checked(path)), path)


def _checked(path: str | os.PathLike[str]) -> bytes:
    # The interpreter may crash on a damaged file, so it never gets to see one.
    data = files.require_file(Path(path), "file").read_bytes()
    seal.check(data, path)
    return data


def interpreter(data: bytes, num_threads: int = 1) -> Any:
    """Returns an interpreter of whatever TFLite runtime is installed."""
    for name in _RUNTIMES:
        try:
            runtime = importlib.import_module(name)
        except ImportError:
            continue
        # `tf.lite` is made when it is first asked for; as a module it has no Interpreter.
        runtime = getattr(runtime, "lite", runtime)
        return runtime.Interpreter(model_content=data, num_threads=num_threads)
    raise InputError("no TFLite runtime is installed; pip install ai-edge-litert")


def _inflate(packed: Any, sha256: str, path: str | os.PathLike[str]) -> bytes:
    content = packed.get_signature_runner("inflate")(request=_REQUEST)["tflite"].tobytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path} inflates to other bytes than it says; export it again")
    return content


def _about(packed: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    text = packed.get_signature_runner("about")(request=_REQUEST)["json"].tobytes()
    found = about.parse(text, path)
    entries = packed.get_signature_list()["embed"]["inputs"]
    if found["input"] not in entries:
        raise InputError(
            f"{path} has wrong metadata: input is {found['input']!r}, but the network takes "
            f"{', '.join(entries)}; export it again"
        )
    return found
