import pytest
import tf_keras as keras
from conftest import shallow

import tfq_sv
from tfq_sv import cli, models
from tfq_sv.reports.complexity import layer_complexity


@pytest.mark.slow
def test_multiplications_of_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel is used once per frame, but what looks at means of them once per mean."""
    shallow(monkeypatch)
    costs = layer_complexity(models.build("ECAPA_TDNN_GLOB_c512"), frames=201)
    for name, cost in costs.items():
        frames = 1 if name == "linear" or ".3.linear" in name else 201
        assert cost.macs == cost.weights * frames, name
    costs = layer_complexity(models.build("CAMPPlus"), frames=401)
    for name, cost in costs.items():
        if name.startswith("xvector."):
            frames = 201  # the first layer halves them
            if ".cam_layer.linear" in name and not name.endswith("local"):
                frames = 3  # segments of 100
            frames = 1 if name == "xvector.dense.linear" else frames
            assert cost.macs == cost.weights * frames, name
    assert costs["head.layer2.0.conv1"].macs == 9 * 32 * 32 * 20 * 401


def test_each_kind_of_layer() -> None:
    layers = keras.layers
    entry = keras.Input((None, 6))
    x = layers.Conv1D(4, 5, strides=2, padding="same", name="conv1d")(entry)
    x = layers.Dense(3, name="frames")(x)
    x = layers.Reshape((-1, 3, 1))(x)
    x = layers.Conv2D(8, 3, padding="same", groups=1, name="conv2d")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    costs = layer_complexity(keras.Model(entry, layers.Dense(5, name="dense")(x)), frames=20)
    assert {name: cost.macs for name, cost in costs.items()} == {
        "conv1d": 10 * 4 * 5 * 6,
        "frames": 10 * 4 * 3,
        "conv2d": 10 * 3 * 8 * 9,
        "depthwise": 10 * 3 * 16 * 9,
        "dense": 16 * 5,
    }


def test_waveforms_are_counted_in_frames_too() -> None:
    entry = keras.Input((None,))
    x = keras.layers.Reshape((-1, 1))(entry)
    x = keras.layers.Conv1D(4, 400, strides=160, name="analysis")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    costs = layer_complexity(keras.Model(entry, x), frames=200)
    assert costs["analysis"].macs == 400 * 4 * 198  # of 32,000 samples


def test_a_shared_layer_is_computed_twice() -> None:
    entry = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    costs = layer_complexity(keras.Model(entry, shared(shared(entry))))
    assert (costs["shared"].macs, costs["shared"].weights) == (32, 16)


def test_quantized_networks_cost_the_same_work(network: keras.Model) -> None:
    small = tfq_sv.quantize(
        network, tfq_sv.QuantizationRecipe.uniform(network, bits=3), calibrate=False
    )
    before, after = layer_complexity(network), layer_complexity(small)
    assert [cost.macs for cost in after.values()] == [cost.macs for cost in before.values()]
    assert all(cost.bits == 3 for cost in after.values())
    assert after["layer1.0.conv1"].bytes() == 9 * 8 * 16 * 3 // 8 + 8


def test_info_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "ResNet18", "--bits=4", "--frames=100"]) == 0
    said = capsys.readouterr().out
    assert "3x3x1x32" in said
    assert "MMACs at 100 frames" in said
    assert "5120x256" in said
    assert cli.main(["info", "--model=ResNet18", "--bits=9"]) == 1
    assert "bits must be a whole number from 1 to 8" in capsys.readouterr().err
