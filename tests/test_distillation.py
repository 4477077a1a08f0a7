"""Training towards a teacher's embeddings, on 3-layer networks."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from hypothesis import given
from hypothesis import strategies as st
from train_small import small

from tfq_sv import cli, training
from tfq_sv.data.chunks import Batches, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.evaluation.measurement import KerasEncoder
from tfq_sv.quantization.quantized_model import load_model
from tfq_sv.training import AAMSoftmax, Augmenter, TeacherEmbeddings, TrainingOptions
from tfq_sv.training.augment import SPEEDS as ALL_SPEEDS
from tfq_sv.training.augment import change_speed
from tfq_sv.training.distillation import UNKNOWN, DistillationTargets, resized, teacher_embeddings

SPEEDS = (1.0, 0.9)
OPTIONS = TrainingOptions(steps=8, batch_size=6, seconds=0.5, learning_rate=1e-2)


def network(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return small()


@pytest.fixture(scope="module")
def teacher(train_corpus: Corpus) -> TeacherEmbeddings:
    encoder = KerasEncoder(network(1))
    return teacher_embeddings(encoder, "one", train_corpus, SPEEDS, progress=False)


def cosines(embeddings: Any) -> np.ndarray:
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return unit @ unit.T


def test_the_teacher_hears_whole_utterances_at_every_speed(
    train_corpus: Corpus, teacher: TeacherEmbeddings
) -> None:
    """And a chunk's label leads to its own utterance's row."""
    encoder = KerasEncoder(network(1))
    whole = batches(train_corpus, batch_size=1, seconds=1.5)
    by_row = batches(
        teacher.numbered(), batch_size=1, seconds=1.5, augmentation=Augmenter(speeds=SPEEDS)
    )
    targets = DistillationTargets(teacher, 8)
    speakers = train_corpus.speaker_ids
    rows = set()
    for _ in range(30):
        (waveform,), (speaker,) = next(whole)
        chunk = next(by_row)
        speed, number = divmod(int(chunk[1][0]), len(train_corpus.paths))
        samples = change_speed(waveform, SPEEDS[speed])
        _, (label,), (target,) = targets(chunk)
        assert label == speaker + speed * len(speakers)
        assert train_corpus.speakers[sorted(train_corpus.paths)[number]] == speakers[speaker]
        expected = encoder.embed(samples)
        assert target @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-5)
        rows.add(int(chunk[1][0]))
    assert max(rows) >= len(train_corpus.paths)


@given(
    dims=st.integers(2, 12), extra=st.integers(0, 9), seed=st.integers(0, 2**16), count=st.just(30)
)
def test_more_dimensions_keep_every_cosine(dims: int, extra: int, seed: int, count: int) -> None:
    points = np.random.default_rng(seed).normal(1, 2, (count, dims))
    moved = resized(points, dims + extra)
    assert moved.shape == (count, dims + extra)
    np.testing.assert_allclose(moved @ moved.T, cosines(points), atol=1e-5)


@given(dims=st.integers(2, 12), size=st.integers(1, 11), seed=st.integers(0, 2**16))
def test_fewer_dimensions_are_the_best_ones(dims: int, size: int, seed: int) -> None:
    """No other linear map comes closer to the matrix of cosines (Eckart and Young)."""
    rng = np.random.default_rng(seed)
    size = min(size, dims)
    points = rng.normal(1, 2, (30, dims)) * rng.uniform(0.1, 3, dims)
    wanted = cosines(points)
    moved = resized(points, size)
    values = np.linalg.eigvalsh(wanted)[::-1]
    error = np.linalg.norm(wanted - moved @ moved.T)
    assert error == pytest.approx(np.linalg.norm(values[size:]), abs=1e-4)
    # Rows in another order are the same points: nothing hangs on the library's signs.
    order = rng.permutation(30)
    if size == dims or np.min(-np.diff(values[: size + 1])) > 1e-3:
        np.testing.assert_allclose(resized(points[order], size), moved[order], atol=1e-3)


@pytest.mark.slow
def test_the_student_comes_to_embed_as_the_teacher(teacher: TeacherEmbeddings) -> None:
    def cosine(student: keras.Model) -> float:
        learned = teacher_embeddings(
            KerasEncoder(student), "student", teacher.corpus, SPEEDS, progress=False
        )
        wanted = resized(teacher.matrix, 8)
        unit = learned.matrix / np.linalg.norm(learned.matrix, axis=1, keepdims=True)
        return float(np.mean(np.sum(unit * wanted, axis=1)))

    student = network(2)
    student.get_layer("seg_1").bias.assign_add(tf.random.stateless_normal([8], [0, 0]))
    before = cosine(student)
    options = replace(OPTIONS, steps=60)
    result = training.train(
        student, teacher.corpus, options, augmenter=Augmenter(speeds=SPEEDS, probability=0),
        teacher=teacher, progress=False,
    )  # fmt: skip
    after = cosine(student)
    assert after > before + 0.3 * (1 - before)
    assert result.loss < 1 - before
    assert student.output_shape == (None, 8)  # no map was added to it


def test_a_last_batch_norm_without_scale_stays(teacher: TeacherEmbeddings) -> None:
    """With a teacher, whose dimensions are not alike; CAM++ ends so, and learned nothing."""
    entry = keras.Input((None, 80))
    mean = keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(16, "relu")(entry))
    norm = keras.layers.BatchNormalization(scale=False, center=False)
    inner = keras.layers.BatchNormalization(scale=False)
    student = keras.Model(entry, norm(keras.layers.Dense(8)(inner(mean))))
    augmenter = Augmenter(speeds=SPEEDS, probability=0)
    training.train(
        student, teacher.corpus, OPTIONS, augmenter=augmenter, teacher=teacher, progress=False
    )
    assert [w.tolist() for w in norm.get_weights()] == [[0.0] * 8, [1.0] * 8]
    assert np.any(inner.moving_mean)
    assert norm.trainable


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_an_interrupted_run_ends_as_an_unbroken_one(
    weight: float, teacher: TeacherEmbeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfq_sv.training.loop.CHECKPOINT_EVERY", 3)
    options = replace(OPTIONS, aam_weight=weight)

    def run(folder: Path | None, with_: TeacherEmbeddings = teacher) -> list[np.ndarray]:
        student = network(2)
        augmenter = Augmenter(speeds=SPEEDS, probability=0)
        keras.utils.set_random_seed(3)
        training.train(
            student, teacher.corpus, options, augmenter=augmenter, teacher=with_,
            checkpoint_dir=folder, progress=False,
        )  # fmt: skip
        return student.get_weights()

    whole = run(None)
    draw, drawn = Batches.__next__, itertools.count()

    def broken(stream: Batches) -> Any:
        if next(drawn) == 4:
            raise KeyboardInterrupt
        return draw(stream)

    monkeypatch.setattr(Batches, "__next__", broken)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr(Batches, "__next__", draw)
    for a, b in zip(whole, run(tmp_path), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="holds a run with teacher one, not two"):
        run(tmp_path, replace(teacher, teacher="two"))


def test_unknown_speakers_do_not_count() -> None:
    """AAM-softmax of some rows is that of the known ones alone; of none it is 0, with gradient."""
    head = AAMSoftmax(3)
    head.build((None, 4))
    head.margin.assign(0.2)
    embeddings = tf.random.stateless_normal([5, 4], [1, 1])
    labels = tf.constant([2, UNKNOWN, 0, UNKNOWN, 1])
    loss, right = head(embeddings, labels)
    expected = head(tf.gather(embeddings, [0, 2, 4]), tf.constant([2, 0, 1]))
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-6)
    assert float(right) == pytest.approx(float(expected[1]))
    with tf.GradientTape() as tape:
        loss, right = head(embeddings, tf.fill([5], UNKNOWN))
    assert float(loss) == float(right) == 0
    assert not tape.gradient(loss, head.centers).numpy().any()


def test_speakers_that_are_known_are_told_apart(teacher: TeacherEmbeddings) -> None:
    """Half a corpus knows its speakers: the others' rows teach embeddings alone."""
    some = {key: who for key, who in teacher.corpus.speakers.items() if who < "id00004"}
    half = replace(teacher, corpus=replace(teacher.corpus, speakers=some))
    classes = half.speakers().reshape(2, -1)
    assert set(classes[0]) == {UNKNOWN, 0, 1, 2}
    np.testing.assert_array_equal(classes[1], np.where(classes[0] < 0, UNKNOWN, classes[0] + 3))
    head = AAMSoftmax(6)
    head.build((None, 8))
    before = head.centers.numpy()
    options = replace(OPTIONS, aam_weight=1.0)
    training.train(
        network(2), half.corpus, options, augmenter=Augmenter(speeds=SPEEDS, probability=0),
        teacher=half, head=head, progress=False,
    )  # fmt: skip
    assert not np.allclose(before, head.centers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: {"augmenter": None}, r"embedded speeds \(1\.0, 0\.9\), .* makes \(1\.0,\)"),
        (
            lambda given: {"corpus": given["corpus"].without(list(given["corpus"].paths)[:1])},
            "which are not the 17 of .*; train on teacher.corpus",
        ),
        (
            lambda given: {"options": replace(OPTIONS, aam_weight=1.0), "nobody": True},
            "has 0 speaker; training needs at least two",
        ),
    ],
)
def test_what_does_not_go_together(
    teacher: TeacherEmbeddings,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    message: str,
) -> None:
    given: dict[str, Any] = {
        "corpus": teacher.corpus, "options": OPTIONS, "teacher": teacher,
        "augmenter": Augmenter(speeds=SPEEDS, probability=0),
    }  # fmt: skip
    given |= change(given)
    if given.pop("nobody", False):
        given["corpus"] = replace(given["corpus"], speakers={})
        given["teacher"] = replace(teacher, corpus=given["corpus"])
    with pytest.raises(InputError, match=message):
        training.train(network(2), given.pop("corpus"), given.pop("options"), **given)


@pytest.mark.slow
def test_the_command(corpus_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two corpora, one unlabelled; the second network reuses what the teacher embedded."""
    network(1).save(tmp_path / "teacher.keras")
    (tmp_path / "flat").mkdir()
    for path in itertools.islice((corpus_dir / "test").rglob("*.wav"), 9):
        shutil.copy(path, tmp_path / "flat" / f"{path.parts[-3]}-{path.name}")
    base = [
        "train", f"--teacher={tmp_path}/teacher.keras", f"--corpus={corpus_dir}/train",
        f"--corpus={tmp_path}/flat", "--speed_perturb", "--channels=16", "--embed_dim=8",
        "--seconds=0.3", "--batch_size=4", "--steps=2", "--precision=bf16",
    ]  # fmt: skip
    (tmp_path / "a.head.npz").touch()  # of another network of that name
    assert cli.main([*base, f"--out={tmp_path}/a.keras"]) == 0
    output = capsys.readouterr().out
    assert "0 classes" in output
    assert load_model(tmp_path / "a.keras").output_shape == (None, 8)
    assert not (tmp_path / "a.head.npz").exists()
    (folder,) = tmp_path.glob("teacher-*")
    assert sorted(x.name for x in folder.iterdir()) == sorted(f"sp{x}" for x in ALL_SPEEDS)
    parts = {path: path.stat().st_mtime_ns for path in folder.rglob("*.ark")}
    assert cli.main([*base, f"--out={tmp_path}/b.keras", "--aam_weight=0.1"]) == 0
    assert "18 classes" in capsys.readouterr().out  # 6 speakers at 3 speeds
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.ark")} == parts
    with np.load(tmp_path / "b.head.npz") as file:
        assert {name.split("-")[-1][:2] for name in file["speakers"]} == {"1/"}
    assert cli.main(["train", f"--corpus={corpus_dir}/train", "--out=c.keras", "--aam_weight=1"])
    assert "--aam_weight goes with --teacher" in capsys.readouterr().err
