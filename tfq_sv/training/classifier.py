"""The classifier that a network was trained under, kept for the large-margin stage.

A file beside the network, `model.head.npz` for `model.keras`: `speakers`, their names, and
`centers`, float32 (embed_dim, speakers).
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.files import atomic
from tfq_sv.training.losses import AAMSoftmax


def class_names(corpus: Corpus, speeds: Sequence[float] = (1.0,)) -> list[str]:
    """Names of the classes: the speakers, then those of each other speed, as Kaldi names them.

    >>> corpus = Corpus(Path(), {}, {"a/1": "ann", "b/1": "bob"})
    >>> class_names(corpus, (1.0, 0.9))
    ['ann', 'bob', 'sp0.9-ann', 'sp0.9-bob']
    """
    speakers = corpus.speaker_ids
    return speakers + [f"sp{speed}-{speaker}" for speed in speeds[1:] for speaker in speakers]


def classifier_path(model: str | os.PathLike[str]) -> Path:
    """Where a network's classifier is kept.

    >>> str(classifier_path("runs/model.keras"))
    'runs/model.head.npz'
    """
    return Path(model).with_suffix(".head.npz")


def save_classifier(path: str | os.PathLike[str], head: AAMSoftmax, names: Sequence[str]) -> None:
    """Writes a classifier with its classes' names."""
    with atomic(path) as temporary:
        np.savez(
            temporary, speakers=np.array(names), centers=tf.convert_to_tensor(head.centers).numpy()
        )


def load_classifier(
    path: str | os.PathLike[str], names: Sequence[str], embed_dim: int, scale: float = 32.0
) -> tuple[AAMSoftmax, list[str]]:
    """Reads a classifier for a corpus with these classes, which it numbers first.

    Classes that the corpus lacks stay: the large-margin stage runs without speed perturbation, but
    still tells the perturbed speakers apart from the others.

    Args:
        path: the file.
        names: of the corpus's classes.
        embed_dim: of the network.
        scale: of the AAM-softmax.

    Returns:
        The classifier, and the names of all its classes.

    Raises:
        InputError: the file is not one, is of another embed_dim, or lacks some of the classes.
    """
    try:
        with np.load(path) as file:
            stored, centers = [str(name) for name in file["speakers"]], file["centers"]
    except (OSError, EOFError, TypeError, KeyError, ValueError, zipfile.BadZipFile):
        raise InputError(f"{path} is not a classifier that tfq-sv train wrote") from None
    if centers.shape != (embed_dim, len(stored)):
        raise InputError(
            f"{path} has centers {centers.shape}; expected ({embed_dim}, {len(stored)}), the "
            "network's embedding and one for each speaker; move that file away"
        )
    place = {name: i for i, name in enumerate(stored)}
    lacking = [name for name in names if name not in place]
    if lacking:
        raise InputError(
            f"{path} lacks {len(lacking)} of {len(names)} speakers (first: {lacking[0]}); to begin "
            "with a new classifier, move that file away"
        )
    wanted = set(names)
    order = [*names, *(name for name in stored if name not in wanted)]
    head = AAMSoftmax(len(order), scale)
    head.build((None, centers.shape[0]))
    head.centers.assign(tf.constant(centers[:, [place[name] for name in order]]))
    return head, order
