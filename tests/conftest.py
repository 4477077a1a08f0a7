"""Fixtures that several tests share: synthetic speech, a small network, and commands' outputs."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import soundfile
import tf_keras as keras
from train_small import small

import tfq_sv
from tfq_sv import cli
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.synthetic import CorpusSpec, make_corpus
from tfq_sv.models import FrontEnd, campplus, df_resnet, pool, resnet
from tfq_sv.models.layers import conv, embedding, norm

# The same examples every time, however slow the machine is.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process works long after the other has ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps inflated files out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights whichever tests ran before."""
    keras.utils.set_random_seed(0)


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


def own_folder(root: Path, corpus_dir: Path) -> Path:
    """Somebody's own recordings: WAV and FLAC, 16 and 44.1 kHz, mono and stereo."""
    import librosa

    for number, path in enumerate(sorted((corpus_dir / "train" / "wav").rglob("*.wav"))):
        samples, rate = soundfile.read(path)
        target = root / path.parts[-3] / f"{path.stem}.{'flac' if number % 2 else 'wav'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if number % 3 == 1:
            samples, rate = librosa.resample(samples, orig_sr=rate, target_sr=44100), 44100
        if number % 3 == 2:
            samples = np.stack([samples, 0.8 * samples], axis=1)
        soundfile.write(target, np.clip(samples, -1, 1), rate)
    return root


@pytest.fixture(scope="session")
def made(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train, quantize and export on an own folder; returns where everything is."""
    root = tmp_path_factory.mktemp("cli")
    own = own_folder(root / "own", corpus_dir)
    small().save(root / "untrained.keras")
    steps = [
        ["train", f"--corpus={own}", f"--out={root}/model.keras", "--steps=3", "--batch_size=4",
         "--seconds=0.5", f"--init={root}/untrained.keras"],
        ["quantize", f"--model={root}/model.keras", f"--out={root}/small.keras", "--bits=4",
         f"--recipe_out={root}/recipe.json"],
        ["export", f"--model={root}/small.keras", f"--out={root}/small.tflite"],
    ]  # fmt: skip
    for step in steps:
        assert cli.main(step) == 0
    return root


def slow(*values: Any) -> list[Any]:
    """Parameters whose cases only `make test` runs, beside others that `make quick` runs too."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def some(values: Iterable[Any], *quick: Any) -> list[Any]:
    """All values: those named for `make quick` too, the rest for `make test` alone."""
    return [value if value in quick else slow(value)[0] for value in values]


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


def tiny_resnet(channels: int = 8, embed_dim: int = 16) -> keras.Model:
    """Five layers of a ResNet, its shortcut included: for all that needs no depth."""
    keras.utils.set_random_seed(0)
    features = keras.Input((None, 80), name="features")
    x = norm(conv(FrontEnd()(features), "conv1", channels, 3, 2), "bn1", relu=True)
    x = pool(resnet._basic(x, "layer1.0", 2 * channels, 2), "TSTP")
    return randomize(keras.Model(features, embedding(x, embed_dim, False), name="tiny"))


@pytest.fixture
def network() -> keras.Model:
    return tiny_resnet()


@pytest.fixture
def resnet18() -> keras.Model:
    """21 layers, for claims on what depth does to accuracy: each use costs seconds."""
    keras.utils.set_random_seed(0)
    return randomize(tfq_sv.models.build("ResNet18", embed_dim=32, channels=16))


def shallow(patch: pytest.MonkeyPatch) -> None:
    """Gives ResNets one block per stage and CAM++ two layers per dense block.

    Every kind of layer is there, at a fraction of the work.
    """
    for name, (_, bottleneck) in resnet.DEPTHS.items():
        patch.setitem(resnet.DEPTHS, name, ((1, 1, 1, 1), bottleneck))
    for name in df_resnet.DEPTHS:
        patch.setitem(df_resnet.DEPTHS, name, (1, 1, 1, 1))
    blocks = tuple((2, dilation) for _, dilation in campplus._BLOCKS)
    patch.setattr(campplus, "_BLOCKS", blocks)


RATE = 16000
TONES = {"noise": 3000.0, "speech": 1500.0, "music": 700.0}


def write(path: Path, samples: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)
    return path


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return 0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture
def musan(tmp_path: Path) -> Path:
    """Each kind is a tone of its own, so that tests know which was added."""
    root = tmp_path / "corpora" / "musan"
    for kind, folders in [
        ("noise", ("free-sound", "sound-bible")),
        ("speech", ("librivox", "us-gov")),
        ("music", ("fma", "hd-classical", "jamendo")),
    ]:
        for number, folder in enumerate(folders):
            file = root / kind / folder / f"{kind}-{folder}-{number:04d}.wav"
            write(file, tone(TONES[kind], 0.6 + number))
            (file.parent / "ANNOTATIONS").write_text("one line per file\n")
    (root / "README").write_text("MUSAN\n")
    return root


@pytest.fixture
def rirs(tmp_path: Path) -> Path:
    root = tmp_path / "corpora" / "RIRS_NOISES"
    rng = np.random.default_rng(0)
    for room in ("smallroom", "mediumroom", "largeroom"):
        for number in (1, 2):
            file = root / "simulated_rirs" / room / "Room001" / f"Room001-{number:05d}.wav"
            decay = np.exp(-np.arange(4000) / 400)
            write(file, 0.5 * decay * rng.uniform(-1, 1, 4000))
        (root / "simulated_rirs" / room / "rir_list").write_text("--rir-id ...\n")
    write(root / "pointsource_noises" / "noise-free-sound-0000.wav", tone(3000))
    write(root / "real_rirs_isotropic_noises" / "air_type1_air_binaural.wav", tone(50))
    return root
