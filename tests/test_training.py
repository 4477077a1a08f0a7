import itertools
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
import train_small

from tfq_sv import training
from tfq_sv.data.chunks import Batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.training import AAMSoftmax, TrainingOptions


def test_aam_softmax_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    head = AAMSoftmax(5, scale=30.0)
    embeddings = rng.normal(size=(8, 4)).astype(np.float32)
    labels = rng.integers(5, size=8).astype(np.int32)
    head(embeddings, labels)
    head.margin.assign(0.2)
    centers = head.centers.numpy()
    embeddings[0] = 0.01 * embeddings[0] - centers[:, labels[0]]  # the angle and the margin pass pi
    loss, accuracy = head(embeddings, labels)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ (centers / np.linalg.norm(centers, axis=0))
    angles = np.arccos(cosines)
    assert angles[0, labels[0]] + 0.2 > np.pi > np.delete(angles[range(8), labels] + 0.2, 0).max()
    logits = 30.0 * cosines
    for row, label in enumerate(labels):
        if angles[row, label] + 0.2 < np.pi:
            logits[row, label] = 30.0 * np.cos(angles[row, label] + 0.2)
        else:  # on from -1, which it has at pi - 0.2, as the cosine falls
            logits[row, label] = 30.0 * (cosines[row, label] - np.cos(np.pi - 0.2) - 1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    expected = -np.mean(shifted[np.arange(8), labels] - np.log(np.exp(shifted).sum(axis=1)))
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(accuracy) == pytest.approx(np.mean(cosines.argmax(axis=1) == labels))


def test_the_class_centers_are_trained() -> None:
    """Built once: a second build would leave the optimizer with variables that nothing uses."""
    head = AAMSoftmax(5)
    head.build((None, 4))
    embeddings, labels = tf.ones([2, 4]), tf.constant([0, 1])
    with tf.GradientTape() as tape:
        loss, _ = head(embeddings, labels)
    assert len(head.trainable_variables) == 1
    assert tape.gradient(loss, head.centers) is not None


def small() -> keras.Model:
    keras.utils.set_random_seed(0)
    return train_small.small()


OPTIONS = TrainingOptions(steps=6, batch_size=4, seconds=0.5, learning_rate=1e-3)


def test_training_lowers_the_loss(train_corpus: Corpus) -> None:
    options = TrainingOptions(steps=25, batch_size=8, seconds=0.5, learning_rate=1e-3, margin=0)
    model = small()
    first = training.train(
        model, train_corpus, TrainingOptions(steps=1, batch_size=8, seconds=0.5), progress=False
    )
    mean = training.train(small(), train_corpus, options, progress=False)
    assert mean.loss < first.loss
    assert not mean.skipped


def test_an_interrupted_run_ends_as_an_unbroken_one(
    train_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints every three steps; the second run begins at step 3."""
    monkeypatch.setattr("tfq_sv.training.loop.CHECKPOINT_EVERY", 3)
    whole = small()
    training.train(whole, train_corpus, OPTIONS, progress=False)
    draw, drawn = Batches.__next__, itertools.count()

    def broken(stream: Batches) -> Any:
        if next(drawn) == 4:
            raise KeyboardInterrupt
        return draw(stream)

    monkeypatch.setattr(Batches, "__next__", broken)
    with pytest.raises(KeyboardInterrupt):
        training.train(small(), train_corpus, OPTIONS, checkpoint_dir=tmp_path, progress=False)
    monkeypatch.setattr(Batches, "__next__", draw)
    resumed = small()
    training.train(resumed, train_corpus, OPTIONS, checkpoint_dir=tmp_path, progress=False)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other = TrainingOptions(steps=7, batch_size=4, seconds=0.5, learning_rate=1e-3)
    with pytest.raises(InputError, match="holds a run with steps 6, not 7"):
        training.train(small(), train_corpus, other, checkpoint_dir=tmp_path, progress=False)


@pytest.mark.slow
def test_ctrl_c_loses_no_step(
    train_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in the midst of step 4; the step is done, the state saved, the next run step 5."""
    # A shell's background jobs ignore SIGINT, and so does what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    draw, drawn = Batches.__next__, itertools.count()

    def pressed(stream: Batches) -> Any:
        if next(drawn) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(stream)

    whole, resumed = small(), small()
    training.train(whole, train_corpus, OPTIONS, progress=False)
    monkeypatch.setattr(Batches, "__next__", pressed)
    with pytest.raises(KeyboardInterrupt, match=r"after step 5 of 6; .* the same command resumes"):
        training.train(small(), train_corpus, OPTIONS, checkpoint_dir=tmp_path, progress=False)
    drawn = itertools.count(5)
    training.train(resumed, train_corpus, OPTIONS, checkpoint_dir=tmp_path, progress=False)
    assert next(drawn) == 6
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.fixture(scope="module")
def state(train_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a whole run leaves."""
    folder = tmp_path_factory.mktemp("state")
    training.train(small(), train_corpus, OPTIONS, checkpoint_dir=folder, progress=False)
    return folder


@pytest.mark.parametrize(
    ("part", "left"),
    [
        ("ckpt-*.data*", 0), ("ckpt-*.data*", 100), ("ckpt-*.index", 0), ("ckpt-*.index", 100),
        ("checkpoint", 0),
    ],
)  # fmt: skip
def test_a_damaged_state_says_so(
    part: str, left: int, state: Path, train_corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(state, tmp_path, dirs_exist_ok=True)
    (file,) = tmp_path.glob(part)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(InputError, match="holds a damaged state; delete that folder"):
        training.train(small(), train_corpus, OPTIONS, checkpoint_dir=tmp_path, progress=False)


def test_a_full_disk_says_so(
    train_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr("tensorflow.train.CheckpointManager.save", full)
    with pytest.raises(InputError, match=r"cannot be written to .*No space left on device"):
        training.train(small(), train_corpus, OPTIONS, checkpoint_dir=tmp_path, progress=False)


def test_bad_runs_say_why(train_corpus: Corpus, test_corpus: Corpus) -> None:
    with pytest.raises(InputError, match="steps must be positive, not 0"):
        TrainingOptions(steps=0)
    one = Corpus(train_corpus.root, train_corpus.paths, dict.fromkeys(train_corpus.paths, "ann"))
    with pytest.raises(InputError, match="1 speaker; training needs at least two"):
        training.train(small(), one, OPTIONS)
    broken = small()
    kernel = broken.get_layer("seg_1").kernel
    kernel.assign(np.full(kernel.shape, np.nan, np.float32))
    with pytest.raises(InputError, match="loss became nan at step 0"):
        training.train(broken, train_corpus, OPTIONS, progress=False)
