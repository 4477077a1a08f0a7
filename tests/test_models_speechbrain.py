"""SpeechBrain's ECAPA-TDNN: its files, its network in PyTorch's form, its front end everywhere."""

import contextlib
import functools
from pathlib import Path

import numpy as np
import pytest
import speechbrain_oracle
import tensorflow as tf
from checkpoints import LOUD, State, save, state_like
from test_export_frontend import run, transposing
from test_features import SIGNALS, speech

from tfq_sv import features, models
from tfq_sv.errors import InputError
from tfq_sv.export import float32
from tfq_sv.features import SPEECHBRAIN
from tfq_sv.models import importer, verification
from tfq_sv.models.checkpoint import read_checkpoint
from tfq_sv.models.speechbrain import NAME

HYPERPARAMS = """
pretrained_path: speechbrain/spkrec-ecapa-voxceleb
n_mels: 80
out_n_neurons: 7205
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [1024, 1024, 1024, 1024, 3072]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    groups: [1, 1, 1, 1, 1]
    attention_channels: 128
    lin_neurons: 8
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 192
    out_neurons: !ref <out_n_neurons>
modules:
    compute_features: !ref <compute_features>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
"""


@functools.cache
def state() -> State:
    return state_like(models.build(NAME, channels=16, embed_dim=8), LOUD)


def folder(path: Path, text: str = HYPERPARAMS) -> Path:
    """A folder as SpeechBrain publishes it: the classifier and the statistics are files too."""
    save(path / "embedding_model.ckpt", state())
    save(path / "classifier.ckpt", {"weight": np.zeros([5, 8], np.float32)})
    (path / "mean_var_norm_emb.ckpt").write_bytes(b"")
    (path / "hyperparams.yaml").write_text(text)
    return path


@pytest.mark.slow
def test_agrees_with_pytorch(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(folder(tmp_path))
    assert checkpoint.origin == "SpeechBrain"
    model = importer.to_keras(checkpoint)
    assert model.name == NAME
    assert models.front_end(model) == SPEECHBRAIN
    for agreement in verification.verify(checkpoint, model, frames=(5, 61, 100, 201)):
        assert agreement.relative < 1e-5
        assert agreement.cosine > 0.999999


def test_the_keys_alone_tell_it(tmp_path: Path) -> None:
    file = folder(tmp_path / "a").joinpath("embedding_model.ckpt")
    bare = file.rename(tmp_path / "b.ckpt")
    model = models.load_wespeaker(bare)
    assert model.name == NAME
    assert models.front_end(model) == SPEECHBRAIN


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1, 2, 3, 4, 1]", "[1, 2, 3, 5, 1]", "has dilations:"),
        ("std_norm: False", "std_norm: True", "has std_norm: True"),
        ("    n_mels: !ref <n_mels>\n", "    n_mels: 40\n", "takes 80 mel bins, the front end"),
        ("Fbank\n", "Fbank\n    n_fft: 512\n", "has n_fft: 512"),
        ("ECAPA_TDNN.ECAPA_TDNN", "Xvector.Xvector", "only SpeechBrain's ECAPA-TDNN is read"),
        ("n_mels: 80", "n_mels: [", "is not YAML"),
    ],
)
def test_strict_about_hyperparams(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_checkpoint(folder(tmp_path, HYPERPARAMS.replace(old, new, 1)))


@pytest.mark.parametrize(
    "line",
    [
        "run: !apply:os.system ['touch {}']",
        "run: !new:subprocess.Popen\n    args: ['touch', '{}']",
        "run: !name:os.system\nn: !!python/object/apply:os.system ['touch {}']",
        "a: !include:{}",
    ],
)
def test_nothing_in_hyperparams_is_run(line: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = folder(tmp_path / "a", HYPERPARAMS + line.format(marker) + "\n")
    with contextlib.suppress(InputError):
        importer.load_checkpoint(path)
    assert not marker.exists()


def test_references_that_go_round_end(tmp_path: Path) -> None:
    text = HYPERPARAMS.replace("n_mels: 80", "n_mels: !ref <other>\nother: !ref <n_mels>", 1)
    with pytest.raises(InputError, match="expected equal numbers"):
        read_checkpoint(folder(tmp_path, text))


@pytest.mark.parametrize("name", SIGNALS)
def test_the_front_end_equals_the_description(name: str) -> None:
    waveform = SIGNALS[name].astype(np.float32)
    expected = speechbrain_oracle.fbank(waveform)
    found = features.fbank(waveform, SPEECHBRAIN)
    assert found.shape == (SPEECHBRAIN.num_frames(len(waveform)), 80)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    batch = features.fbank_tensor(tf.constant(waveform[None]), SPEECHBRAIN)[0].numpy()
    np.testing.assert_allclose(batch, expected, atol=5e-3)


def test_the_front_end_in_the_file(tmp_path: Path) -> None:
    data = float32.convert(transposing(SPEECHBRAIN), "waveform")
    assert len(data) - len(float32.convert(transposing(SPEECHBRAIN), "features")) < 28_000
    for seconds in (0.2, 0.333, 1, 2.4):
        waveform = speech(int(16000 * seconds)).astype(np.float32)
        expected = speechbrain_oracle.fbank(waveform)
        np.testing.assert_allclose(run(data, waveform), expected, atol=2e-2)


def test_bad_options_say_what_is_wrong() -> None:
    with pytest.raises(InputError, match="multiple of 16 samples"):
        features.FbankOptions(kind="speechbrain", frame_length=410)
    with pytest.raises(InputError, match="kind must be one of"):
        features.FbankOptions(kind="librosa")
