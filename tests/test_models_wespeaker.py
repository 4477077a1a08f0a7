"""The importer: golden answers of WeSpeaker's own networks, our PyTorch form, and bad files."""

import functools
import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras
import torch
import yaml
from checkpoints import DATA, State, golden_features, golden_state, save, state_like
from conftest import some

import tfq_sv
from tfq_sv import cli, models
from tfq_sv.errors import InputError
from tfq_sv.features import WESPEAKER
from tfq_sv.models import importer, verification
from tfq_sv.models.checkpoint import read_checkpoint

GOLDEN = ["ResNet18", "ResNet34", "Gemini_DF_ResNet60"]
SMALL = {"channels": 4, "embed_dim": 8}


@functools.cache
def small_state(name: str = "ResNet18", **settings: Any) -> State:
    return state_like(models.build(name, **{**SMALL, **settings}))


def config(**changes: Any) -> dict[str, Any]:
    """What WeSpeaker writes, as far as anything here reads it."""
    arguments = {"feat_dim": 80, "embed_dim": 8, "pooling_func": "TSTP", "two_emb_layer": False}
    fbank = {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": 1.0}
    dataset = {"speed_perturb": True, "num_frms": 200, "fbank_args": fbank, "spec_aug": False}
    base = {"model": "ResNet18", "model_args": arguments, "dataset_args": dataset}
    return {**base, "loss": "CrossEntropyLoss", **changes}


def folder(path: Path, state: State, settings: dict[str, Any]) -> Path:
    save(path / "avg_model.pt", state)
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_answers(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The answers were computed by WeSpeaker's own PyTorch networks on these weights."""
    state = golden_state(name)
    state["projection.weight"] = np.zeros([5994, 256], np.float32)
    with caplog.at_level(logging.WARNING):
        model = tfq_sv.models.load_wespeaker(save(tmp_path / "avg_model.pt", state))
    assert "dropped 1 tensors that the embedding does not need: projection.weight" in caplog.text
    assert model.name == name
    answers = np.load(DATA / f"{name}.npz")
    for frames in (198, 200, 301):
        embedding = model(golden_features(frames)).numpy()
        np.testing.assert_allclose(embedding, answers[f"y{frames}"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_pytorch_form_gives_the_golden_answers(name: str) -> None:
    from tfq_sv.models import torch_reference

    state = {key: torch.from_numpy(np.array(x)) for key, x in golden_state(name).items()}
    answers = np.load(DATA / f"{name}.npz")
    for frames in (198, 200, 301):
        found = torch_reference.embed(state, torch.from_numpy(golden_features(frames)))
        np.testing.assert_allclose(found.numpy(), answers[f"y{frames}"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("ResNet50", {}, marks=pytest.mark.slow),
        pytest.param("ResNet34", {"pooling": "ASTP"}, marks=pytest.mark.slow),
        ("ResNet18", {"pooling": "TAP"}),
        ("ResNet18", {"pooling": "TSDP", "two_emb_layer": True}),
        pytest.param(
            "ResNet50",
            {"pooling": "ASTP", "two_emb_layer": True, "feat_dim": 64},
            marks=pytest.mark.slow,
        ),
        pytest.param("DF_ResNet56", {"pooling": "ASTP"}, marks=pytest.mark.slow),
        pytest.param(
            "Gemini_DF_ResNet60",
            {"pooling": "ASTP", "two_emb_layer": True},
            marks=pytest.mark.slow,
        ),
        # The deepest. Others differ from those above in their numbers of blocks alone, and
        # test_models counts the parameters of every one.
        pytest.param("ResNet293", {}, marks=pytest.mark.slow),
    ],
)
def test_every_network_agrees_with_pytorch(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    arguments = config()["model_args"] | {"pooling_func": settings.get("pooling", "TSTP")}
    arguments |= {key: x for key, x in settings.items() if key in ("two_emb_layer", "feat_dim")}
    state = small_state(name, **settings)
    settings_file = config(model=name, model_args=arguments, dataset_args={})
    checkpoint = read_checkpoint(folder(tmp_path, state, settings_file))
    model = importer.to_keras(checkpoint)
    for agreement in verification.verify(checkpoint, model, frames=(61, 100)):
        assert agreement.difference < 1e-4
        assert agreement.cosine > 0.999999


def test_verify_sees_a_wrong_weight(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(tmp_path / "a.pt", small_state()))
    model = importer.to_keras(checkpoint)
    layer = model.get_layer("layer2.0.conv1")
    layer.set_weights([-layer.get_weights()[0]])
    assert all(found.difference > 1e-3 for found in verification.verify(checkpoint, model))


VARIANTS: dict[str, Any] = {
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3},
    "model": lambda tensors: {"model": tensors},
    "nested": lambda tensors: {"model": {"state_dict": tensors}},
    "pyannote": lambda tensors: {f"resnet.{key}": value for key, value in tensors.items()},
    "data parallel": lambda tensors: {f"module.{key}": value for key, value in tensors.items()},
    "float counters": lambda tensors: {**tensors, "bn1.num_batches_tracked": torch.tensor(7.5)},
    "head": lambda tensors: {**tensors, "projection.weight": torch.ones(5, 8)},
    "doubles": lambda tensors: {key: value.double() for key, value in tensors.items()},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> keras.Model:
    return models.load_wespeaker(save(tmp_path_factory.mktemp("plain") / "a.pt", small_state()))


@pytest.mark.parametrize("variant", some(VARIANTS, "state_dict", "pyannote"))
def test_variants_load_alike(variant: str, plain: keras.Model, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(1, 60, 80)).astype(np.float32)
    other = models.load_wespeaker(save(tmp_path / "other.pt", small_state(), VARIANTS[variant]))
    np.testing.assert_array_equal(other(features), plain(features))


@pytest.mark.slow
def test_golden_geminis_own_files(tmp_path: Path) -> None:
    """Their last layer is `embedding`, and their pooling adds 1e-10."""
    state = small_state("Gemini_DF_ResNet60")
    own = {key.replace("seg_1.", "embedding."): value for key, value in state.items()}
    checkpoint = read_checkpoint(save(tmp_path / "own.pt", own))
    model = importer.to_keras(checkpoint)
    assert model.get_layer("pool").epsilon == 1e-10
    assert all(found.difference < 1e-5 for found in verification.verify(checkpoint, model))


def test_front_end_travels(tmp_path: Path) -> None:
    dataset = {"fbank_args": {"num_mel_bins": 64, "frame_length": 20, "dither": 1.0}, "cmvn": False}
    arguments = config()["model_args"] | {"feat_dim": 64}
    state = small_state(feat_dim=64)
    settings = config(model_args=arguments, dataset_args=dataset)
    model = models.load_wespeaker(folder(tmp_path, state, settings))
    fbank = models.front_end(model)
    assert (fbank.num_bins, fbank.frame_length, fbank.subtract_mean) == (64, 320, False)
    model.save(tmp_path / "model.keras")
    assert models.front_end(tfq_sv.load_model(tmp_path / "model.keras")) == fbank


@pytest.mark.parametrize(
    "changes",
    [
        {"feature_args": {"raw_wav": True, "num_frms": 200}, "dataset_args": {"aug_prob": 0.6}},
        {"feature_args": {"feat_dim": 80, "num_mel_bins": 80, "dither": 1.0}, "dataset_args": None},
        {"dataset_args": {"cmvn": True, "cmvn_args": {"norm_mean": True, "norm_var": False}}},
        {"model_args": {"feat_dim": 80, "embed_dim": 8, "pooling_func": "TSTP"}},
    ],
)
def test_older_configurations(changes: dict[str, Any], tmp_path: Path) -> None:
    model = models.load_wespeaker(folder(tmp_path, small_state(), config(**changes)))
    assert models.front_end(model) == WESPEAKER


def test_experiment_folder(tmp_path: Path) -> None:
    save(tmp_path / "models" / "avg_model.pt", small_state())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(dataset_args={"cmvn": False})))
    for path in (tmp_path, tmp_path / "models" / "avg_model.pt"):
        assert not models.front_end(models.load_wespeaker(path)).subtract_mean


def _without(key: str) -> Any:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("layer3.0.conv1.weight"), "lacks layer3.0.conv1.weight of ResNet18"),
        (_without("conv1.weight"), "lacks conv1.weight of ResNet18"),
        (_without("seg_1.weight"), "lacks seg_1.weight of ResNet18"),
        (_without("layer4.1.bn2.running_var"), "lacks layer4.1.bn2.running_var"),
        (lambda s: {**s, "extra.weight": s["conv1.weight"]}, "holds extra.weight, unknown to"),
        (
            lambda s: {**s, "layer1.0.conv1.weight": s["conv1.weight"]},
            r"layer1.0.conv1.weight has the shape \(4, 1, 3, 3\), ResNet18 expects \(4, 4, 3, 3\)",
        ),
        (lambda s: {**s, "bn1.bias": s["bn1.bias"] * np.nan}, "bn1.bias holds NaN or infinite"),
        (
            lambda s: {**s, "bn1.bias": s["bn1.bias"].astype(np.int64)},
            "bn1.bias is torch.int64; expected floating point",
        ),
        (
            lambda s: {**s, "resnet.bn1.bias": s["bn1.bias"]},
            "holds resnet.bn1.bias, unknown to ResNet18",
        ),
        (lambda s: {"front.conv1.weight": s["conv1.weight"]}, "SimAM ResNet"),
        (lambda s: {"layer1.conv.weight": s["conv1.weight"]}, "is of no known family"),
    ],
)
def test_strict_about_keys(change: Any, message: str, tmp_path: Path) -> None:
    path = folder(tmp_path, change(small_state()), config())
    with pytest.raises(InputError, match=message) as error:
        models.load_wespeaker(path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "ReDimNetB2"}, "is a ReDimNetB2, which is not supported"),
        ({"model": "ResNet34"}, "said to be ResNet34, but its keys are ResNet18's"),
        ({"model": 3}, "names no `model`"),
        ({"model_args": {"pooling_func": "MQMHASTP"}}, "unknown pooling 'MQMHASTP'"),
        ({"model_args": {"embed_dim": 16}}, r"seg_1.weight has the shape \(8, 640\)"),
        ({"model_args": {"width": 2}}, "model_args of config.yaml has 'width'"),
        ({"model_args": [1]}, "model_args in config.yaml should hold settings"),
        ({"model": "two\nlines"}, "is a two lines, which is not supported"),
        ({"model_args": {"embed_dim": "eight"}}, "embed_dim in config.yaml is 'eight'"),
        ({"model_args": {"embed_dim": 8.5}}, "embed_dim in config.yaml is 8.5"),
        ({"model_args": {"feat_dim": 10**9}}, "feat_dim in config.yaml is 1000000000"),
        ({"dataset_args": {"fbank_args": {"frame_length": "long"}}}, "frame_length 'long'"),
        ({"dataset_args": {"frontend": "s3prl"}}, "asks for the front end 's3prl'"),
        ({"dataset_args": {"resample_rate": 8000}}, "asks for 8000 Hz; only 16000 Hz is read"),
        ({"dataset_args": {"resample_rate": "a\nb"}}, r"asks for 'a\\nb' Hz; only 16000 Hz"),
        ({"dataset_args": {"fbank_args": {"num_mel_bins": "a\nb"}}}, r"for 'a\\nb' mel bins"),
        ({"dataset_args": {"cmvn_args": {"norm_var": True}}}, "asks for normalized variance"),
        ({"dataset_args": {"fbank_args": {"num_mel_bins": 40}}}, "asks for 40 mel bins"),
        ({"dataset_args": {"fbank_args": {"low_freq": 60}}}, "asks for low_freq 60"),
        ({"feature_args": {"feat_type": "mfcc"}}, "asks for feat_type 'mfcc'"),
    ],
)
def test_strict_about_configurations(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        models.load_wespeaker(folder(tmp_path, small_state(), config(**changes)))


def test_without_configuration_a_wrong_size_says_what_was_assumed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", small_state(feat_dim=64))
    with pytest.raises(InputError, match=r"without config.yaml, 80 mel bins"):
        models.load_wespeaker(path)


class Malicious:
    """Unpickled by a careless loader, this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.target, "owned"))


def test_a_malicious_pickle_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    torch.save({"state_dict": Malicious(target)}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious(target), protocol=2))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(InputError, match=f"{name} holds more than tensors"):
            models.load_wespeaker(tmp_path / name)
    assert not target.exists()
    # The same bytes do run where a pickle is simply loaded: the check above can fail.
    pickle.loads((tmp_path / "bare.pt").read_bytes())
    assert target.exists()


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.pt", small_state()).read_bytes()
    files = {
        "text.pt": b"not a checkpoint",
        "empty.pt": b"",
        "truncated.pt": whole[: len(whole) // 2],
        "directory.pt": whole.replace(b"PK\x01\x02", b"PX\x01\x02"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is not a PyTorch checkpoint, or is damaged"):
            models.load_wespeaker(tmp_path / name)
    torch.save([torch.ones(3)], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"is not a state dict \(it holds list\)"):
        models.load_wespeaker(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "dict.pt")
    with pytest.raises(InputError, match=r"is not a state dict \('epoch' is no tensor\)"):
        models.load_wespeaker(tmp_path / "dict.pt")
    with pytest.raises(InputError, match=r"checkpoint .* does not exist"):
        models.load_wespeaker(tmp_path / "missing.pt")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"should hold avg_model.pt, embedding_model.ckpt or a s"):
        models.load_wespeaker(tmp_path / "none")
    (tmp_path / "config.yaml").write_text("model: [")
    with pytest.raises(InputError, match=r"config.yaml is not YAML"):
        models.load_wespeaker(tmp_path / "whole.pt")


def test_pytorch_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path, small_state(), config())
    monkeypatch.setitem(sys.modules, "torch", None)
    model = models.load_wespeaker(path)
    assert model.output_shape == (None, 8)
    with pytest.raises(InputError, match=r"--verify needs PyTorch: pip install 'tfq-sv\[torch\]'"):
        verification.verify(read_checkpoint(path), model)


@pytest.mark.slow
def test_import_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = folder(tmp_path / "net", small_state(), config()), tmp_path / "net.keras"
    arguments = ["import", f"--checkpoint={path}", f"--out={out}", "--verify"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "ResNet18" in said
    assert "hamming window, mean subtracted" in said
    assert "max abs difference to PyTorch" in said
    assert tfq_sv.load_model(out).output_shape == (None, 8)
    assert cli.main([*arguments, "--model_name=ResNet50"]) == 1
    assert "its keys are ResNet18's" in capsys.readouterr().err


def test_import_refuses_what_differs_from_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = save(tmp_path / "a.pt", small_state()), tmp_path / "a.keras"
    monkeypatch.setattr(
        verification, "verify", lambda *_, **__: [verification.Agreement(200, float("nan"), 0.0)]
    )
    assert cli.main(["import", f"--checkpoint={checkpoint}", f"--out={out}", "--verify"]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not out.exists()
