"""Fixtures that several tests share: a small corpus of made speech, a small network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tf_keras as keras

import tfq_sv
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.synthetic import CorpusSpec, make_corpus


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps inflated files out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    spec = CorpusSpec(speakers=6, test_speakers=6, utterances=3, test_utterances=3, seconds=1.5)
    make_corpus(out, spec, workers=1, progress=False)
    return out


@pytest.fixture(scope="session")
def train_corpus(corpus_dir: Path) -> Corpus:
    return Corpus.read(corpus_dir / "train")


@pytest.fixture(scope="session")
def test_corpus(corpus_dir: Path) -> Corpus:
    return Corpus.read(corpus_dir / "test")


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Gives BatchNorms the statistics and scales of a trained network, signs included."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.moving_mean.shape[0]
            scale = rng.uniform(0.5, 1.0, n) * np.where(rng.random(n) < 0.1, -1, 1)
            affine = [scale, rng.normal(0, 0.1, n)] if layer.scale else []
            layer.set_weights([*affine, rng.normal(0, 0.1, n), rng.uniform(0.5, 1.5, n)])
    return model


@pytest.fixture
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return randomize(tfq_sv.models.build("ResNet18", embed_dim=32, channels=16))
