"""Checkpoints as people have them: other containers, other prefixes, configurations in quotes."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from checkpoints import State, save
from conftest import shallow, slow
from test_models_wespeaker import config, folder, small_state

from tfq_sv import cli, models
from tfq_sv.errors import InputError
from tfq_sv.models.checkpoint import read_checkpoint
from tfq_sv.models.checkpoint_files import read_tensors

FEATURES = np.random.default_rng(0).normal(size=(1, 60, 80)).astype(np.float32)
STATE = small_state()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = save(tmp_path_factory.mktemp("plain") / "plain.pt", STATE)
    return models.load_checkpoint(path)(FEATURES).numpy()


def test_numbers_in_quotes(tmp_path: Path, expected: np.ndarray) -> None:
    arguments = {"feat_dim": "80", "embed_dim": "8", "two_emb_layer": "False"}
    fbank = {"num_mel_bins": "80", "frame_length": "25", "frame_shift": "10.0", "dither": "1.0"}
    dataset: dict[str, Any] = {"fbank_args": fbank, "resample_rate": "16000", "cmvn": "true"}
    path = folder(tmp_path, STATE, config(model_args=arguments, dataset_args=dataset))
    model = models.load_checkpoint(path)
    np.testing.assert_array_equal(model(FEATURES), expected)
    assert models.front_end(model).subtract_mean
    for no in ("false", "No", "off", None, 0):
        dataset["cmvn"] = no
        path = folder(tmp_path, STATE, config(model_args=arguments, dataset_args=dataset))
        assert not models.front_end(models.load_checkpoint(path)).subtract_mean
    for wrong in ("sliding", 300, ["no"]):
        path = folder(
            tmp_path, STATE, config(model_args=arguments, dataset_args={**dataset, "cmvn": wrong})
        )
        with pytest.raises(InputError, match=r"asks for cmvn .*; only true or false is read"):
            models.load_checkpoint(path)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "net.embedding_model.",
     *slow("model.", "resnet.", "encoder.", "_orig_mod.", "speaker_model.backbone.",
           "module.model.resnet.")],
)  # fmt: skip
def test_any_prefix(prefix: str, tmp_path: Path, expected: np.ndarray) -> None:
    state = {f"{prefix}{key}": value for key, value in STATE.items()}
    state |= {"loss.weight": np.ones((5, 8)), f"{prefix}projection.weight": np.ones((5, 8))}
    checkpoint = read_checkpoint(save(tmp_path / "a.pt", state))
    assert set(checkpoint.dropped) == {"loss.weight", f"{prefix}projection.weight"}
    model = models.load_checkpoint(tmp_path / "a.pt")
    np.testing.assert_array_equal(model(FEATURES), expected)


@pytest.mark.parametrize("name", ["Gemini_DF_ResNet60", *slow("CAMPPlus", "ECAPA_TDNN_c512")])
def test_any_prefix_of_any_family(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shallow(monkeypatch)
    channels = 8 if name.startswith("ECAPA") else 4
    state = small_state(name, channels=channels)
    prefixed = {f"model.encoder.{key}": value for key, value in state.items()}
    found = read_checkpoint(save(tmp_path / "a.pt", prefixed)).state
    assert found.keys() == {key for key in state if not key.endswith("tracked")}


@pytest.mark.parametrize("wrapper", ["net", *slow("weights", "state_dict_ema")])
@pytest.mark.parametrize("more", [{}, {"args": Namespace(lr=0.1)}])
def test_any_wrapper(
    wrapper: str, more: dict[str, Any], tmp_path: Path, expected: np.ndarray
) -> None:
    """Beside whatever a training loop keeps: the one state dict is the network's."""
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    state = {key: torch.as_tensor(value) for key, value in STATE.items()}
    state["steps"] = torch.tensor(7)
    content = {"epoch": 3, wrapper: state, "optimizer": optimizer, **more}
    torch.save(content, tmp_path / "a.pt")
    np.testing.assert_array_equal(models.load_checkpoint(tmp_path / "a.pt")(FEATURES), expected)
    content["other"] = state
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"is not a state dict|holds more than tensors"):
        models.load_checkpoint(tmp_path / "a.pt")


def test_two_networks_are_not_guessed_at(tmp_path: Path) -> None:
    both = {f"{who}.{key}": x for who in ("teacher", "student") for key, x in STATE.items()}
    with pytest.raises(InputError, match=r"several networks \(teacher\., student\.\)"):
        models.load_checkpoint(save(tmp_path / "a.pt", both))
    both = {f"{who}.{key}": x for who in ("model", "ema.module") for key, x in STATE.items()}
    with pytest.raises(InputError, match=r"several networks \(model\., ema\.module\.\)"):
        models.load_checkpoint(save(tmp_path / "a.pt", both))
    front = {f"model.front.{key}": value for key, value in STATE.items()}
    with pytest.raises(InputError, match="SimAM ResNet"):
        models.load_checkpoint(save(tmp_path / "a.pt", front))


def test_averaged_weights_beside_are_said(
    tmp_path: Path, expected: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    def wrap(state: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"ema": {key: value / 2 for key, value in state.items()}, "model": state}

    model = models.load_checkpoint(save(tmp_path / "a.pt", STATE, wrap))
    np.testing.assert_array_equal(model(FEATURES), expected)
    assert "read 'model'; ema is left out" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to_sparse(), None),
        (lambda x: x.to("meta"), "seg_1.weight has no values that can be read"),
        (lambda x: x.to(torch.complex64), "seg_1.weight is torch.complex64; expected floating"),
    ],
)
def test_tensors_of_every_kind(
    change: Any, message: str | None, tmp_path: Path, expected: np.ndarray
) -> None:
    path = save(
        tmp_path / "a.pt", STATE, lambda x: {**x, "seg_1.weight": change(x["seg_1.weight"])}
    )
    if message is None:
        np.testing.assert_array_equal(models.load_checkpoint(path)(FEATURES), expected)
        return
    with pytest.raises(InputError, match=message):
        models.load_checkpoint(path)


def test_negative_variances_are_damage(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {**STATE, "bn1.running_var": -STATE["bn1.running_var"]})
    with pytest.raises(InputError, match=r"bn1\.running_var holds negative variances"):
        models.load_checkpoint(path)


PYANNOTE = {
    "_target_": "pyannote.audio.models.embedding.WeSpeakerResNet18",
    "sample_rate": 16000, "num_channels": 1, "num_mel_bins": 80, "frame_length": 25,
    "frame_shift": 10, "dither": 0.0, "window_type": "hamming", "use_energy": False,
}  # fmt: skip


class Specifications:
    """What pyannote's files hold beside the weights: an object of a class of theirs."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.write_text, (self.target, "owned")


def lightning(path: Path, state: State, target: Path) -> Path:
    tensors = {f"resnet.{key}": torch.from_numpy(value) for key, value in state.items()}
    other = {"specifications": Specifications(target), "architecture": {"class": "ResNet"}}
    content = {"state_dict": tensors, "pyannote.audio": other, "epoch": 3, "callbacks": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def test_pyannotes_published_copy(tmp_path: Path, expected: np.ndarray) -> None:
    owned = tmp_path / "owned"
    lightning(tmp_path / "net" / "pytorch_model.bin", STATE, owned)
    (tmp_path / "net" / "config.yaml").write_text(yaml.safe_dump({"model": PYANNOTE}))
    model = models.load_checkpoint(tmp_path / "net")
    np.testing.assert_array_equal(model(FEATURES), expected)
    assert not owned.exists()
    torch.load(tmp_path / "net" / "pytorch_model.bin", weights_only=False)
    assert owned.exists()  # so the file does run where it is loaded carelessly


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_target_": "pyannote.audio.models.embedding.XVectorSincNet"}, "_target_ is .*XVectorS"),
        ({"_target_": "pyannote.audio.models.segmentation.PyanNet"}, "PyanNet, which is not supp"),
        ({"_target_": None}, "_target_ is None"),
        ({"window_type": "povey"}, "asks for window_type 'povey'"),
        ({"use_energy": True}, "asks for use_energy True"),
        ({"fbank_centering_span": 3.0}, "asks for fbank_centering_span 3.0"),
        ({"sample_rate": 8000}, "asks for 8000 Hz"),
        ({"num_mel_bins": 40}, "seg_1.weight has the shape"),
    ],
)
def test_pyannotes_other_networks(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    settings = {"model": {**PYANNOTE, **changes}}
    with pytest.raises(InputError, match=message):
        models.load_checkpoint(folder(tmp_path, STATE, settings))


def safetensors(path: Path, state: State, kind: str = "F32") -> Path:
    """Writes the format by its specification."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for key, value in state.items():
        data = value.astype({"F16": "<f2", "F64": "<f8"}.get(kind, "<f4")).tobytes()
        if kind == "BF16":
            data = (np.frombuffer(data, "<u4") >> 16).astype("<u2").tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[key] = {"dtype": kind, "shape": list(value.shape), "data_offsets": offsets}
        body += data
    counter = np.int64(7).tobytes()
    offsets = [len(body), len(body) + 8]
    header["bn1.num_batches_tracked"] = {"dtype": "I64", "shape": [], "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body + counter)
    return path


@pytest.mark.parametrize("kind", ["F32", "F64", "F16", "BF16"])
def test_safetensors_without_pytorch(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: np.ndarray
) -> None:
    path = safetensors(tmp_path / "net" / "model.safetensors", STATE, kind)
    monkeypatch.setitem(sys.modules, "torch", None)
    tolerance = {"F16": 2e-3, "BF16": 2e-2}.get(kind, 1e-7)
    for key, value in read_tensors(path).items():
        np.testing.assert_allclose(value, STATE[key], rtol=tolerance, atol=1e-6)
    if kind == "F32":
        for place in (path, path.parent):
            np.testing.assert_array_equal(models.load_checkpoint(place)(FEATURES), expected)


def test_damaged_safetensors(tmp_path: Path) -> None:
    whole = safetensors(tmp_path / "a.safetensors", STATE).read_bytes()
    for content in (
        b"",
        b"text",
        whole[:100],
        whole[:-100],
        b"\xff" * 8 + whole[8:],
        whole.replace(b'"F32"', b'"I32"'),
        whole.replace(b'"shape"', b'"forms"'),
    ):
        (tmp_path / "b.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.safetensors is not a safetensors file, or"):
            models.load_checkpoint(tmp_path / "b.safetensors")


def test_programs_say_which_file_to_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "final.zip")
    (tmp_path / "final.zip").rename(tmp_path / "final.pt")
    torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "final.zip")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07")
    for name, kind in (
        ("final.pt", "TorchScript"),
        ("final.zip", "TorchScript"),
        ("net.onnx", "ONNX"),
    ):
        arguments = ["import", f"--checkpoint={tmp_path / name}", f"--out={tmp_path}/a.keras"]
        assert cli.main(arguments) == 1
        error = capsys.readouterr().err
        assert f"{name} is a" in error
        assert f"{kind} program" in error
        assert "take avg_model.pt" in error
        assert cli.main(["info", f"--model={tmp_path / name}"]) == 1
        assert "take avg_model.pt" in capsys.readouterr().err


@pytest.mark.slow
def test_an_experiment_without_average(tmp_path: Path) -> None:
    """The last ten epochs are averaged, by their numbers rather than by their names' order."""
    rng = np.random.default_rng(0)
    states = []
    for epoch in range(1, 13):
        noise = rng.normal(1, 0.01, len(STATE))
        states.append({k: x * f for (k, x), f in zip(STATE.items(), noise, strict=True)})
        save(tmp_path / "models" / f"model_{epoch}.pt", states[-1])
    save(tmp_path / "models" / "final_model.pt", states[0])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config()))
    for place in (tmp_path, tmp_path / "models"):
        checkpoint = read_checkpoint(place)
        assert checkpoint.averaged == 10
        assert "no avg_model.pt: the last 10 epochs are averaged" in checkpoint.notes
        for key, value in checkpoint.state.items():
            wanted = np.mean([state[key] for state in states[2:]], axis=0)
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7)
    assert models.load_checkpoint(tmp_path).name == "ResNet18"
    assert read_checkpoint(tmp_path / "models" / "model_3.pt").averaged == 1
    save(tmp_path / "models" / "model_13.pt", small_state(embed_dim=16))
    with pytest.raises(InputError, match=r"model_13\.pt is of another network than .*model_4\.pt"):
        models.load_checkpoint(tmp_path)
    save(tmp_path / "models" / "avg_model.pt", STATE)
    assert read_checkpoint(tmp_path).averaged == 1


@pytest.mark.parametrize(
    "name",
    ["model-{}.pt", "model_epoch_{}.pt", "checkpoint_{}.pth", "epoch={}.ckpt", "Epoch{}.pt",
     "ckpt_{}.pt"],
)  # fmt: skip
def test_epochs_as_others_call_them(name: str, tmp_path: Path) -> None:
    for epoch in (9, 10):
        state = {key: epoch * value for key, value in STATE.items()}
        save(tmp_path / "models" / name.format(epoch), state)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config()))
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.averaged == 2
    for key, value in checkpoint.state.items():
        np.testing.assert_allclose(value, 9.5 * STATE[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["avg_model.pt", "pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("\n<!DOCTYPE html><html>", "is a web page"),
    ],
)
def test_downloads_that_failed(text: str, message: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    for place in (tmp_path, tmp_path / name):
        with pytest.raises(InputError, match=message):
            models.load_checkpoint(place)
