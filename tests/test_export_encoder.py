import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from tfq_sv import features
from tfq_sv.codebook import Codebook
from tfq_sv.errors import InputError
from tfq_sv.export import (
    SpeakerEncoder,
    cache,
    convert,
    encoder,
    float32,
    inflate,
    metadata,
    read_about,
    seal,
    write_about,
)


@pytest.fixture(scope="module")
def network() -> tuple[Any, dict[str, Codebook]]:
    layers = keras.layers
    inputs = layers.Input((None, 80))
    x = layers.Conv1D(16, 3, activation="relu", name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(8, name="seg")(layers.GlobalAveragePooling1D()(x)))
    rng, books = np.random.default_rng(0), {}
    for name in ("conv", "seg"):
        kernel = model.get_layer(name).kernel
        codes = rng.integers(0, 4, kernel.shape).astype(np.uint8)
        books[name] = Codebook(np.float32([-127, -40, 40, 127]) / 1270, codes)
        kernel.assign(books[name].decode())
    return model, books


@pytest.fixture(scope="module")
def good(network: tuple[Any, dict[str, Codebook]]) -> bytes:
    return convert.build(*network, "features").data


@pytest.fixture
def path(good: bytes, tmp_path: Path) -> Path:
    target = tmp_path / "speaker.tflite"
    target.write_bytes(good)
    return target


def noise(seconds: float) -> Any:
    return np.random.default_rng(0).uniform(-0.1, 0.1, int(16000 * seconds)).astype(np.float32)


def test_a_waveform_goes_through_the_front_end_that_the_file_names(path: Path) -> None:
    speaker = SpeakerEncoder(path)
    embedding = speaker.embed(noise(1))
    assert (embedding.shape, embedding.dtype) == ((8,), np.float32)
    np.testing.assert_array_equal(embedding, speaker.embed(waveform=noise(1)))
    np.testing.assert_allclose(embedding, speaker.embed(features.fbank(noise(1))), atol=1e-6)
    other = features.THREE_D_SPEAKER
    write_about(path, frontend={**speaker.about["frontend"], "window": other.window})
    assert np.abs(SpeakerEncoder(path).embed(noise(1)) - embedding).max() > 1e-6


def test_slow_and_fast_agree(path: Path) -> None:
    slow, fast = SpeakerEncoder(path, fast=False), SpeakerEncoder(path, num_threads=2)
    np.testing.assert_allclose(slow.embed(noise(1)), fast.embed(noise(1)), atol=0.05, rtol=0.01)


@pytest.mark.parametrize(
    "speech",
    [
        np.zeros((9, 79)),
        np.zeros((0, 80)),
        np.zeros((1, 9, 80)),
        np.full((9, 80), np.nan),
        ["x"],
        [[1.0], [1.0, 2.0]],
        None,
        {},
        np.ones((9, 80), bool),
        np.ones((9, 80), complex),
    ],
    ids=["width", "empty", "rank", "nan", "text", "ragged", "none", "object", "bool", "complex"],
)
def test_refuses_what_is_no_speech(path: Path, speech: Any) -> None:
    with pytest.raises(InputError):
        SpeakerEncoder(path).embed(speech)


@pytest.mark.parametrize("fast", [True, False])
def test_too_few_frames_are_an_input_error(path: Path, fast: bool) -> None:
    speaker = SpeakerEncoder(path, fast=fast)
    with pytest.raises(InputError, match="too few"):
        speaker.embed(np.ones((2, 80)))
    assert speaker.embed(np.ones((3, 80))).shape == (8,)


@pytest.mark.parametrize("failure", [RuntimeError("Node 7. Node 9 failed."), MemoryError()])
def test_what_the_runtime_cannot_take_is_not_called_too_few(
    path: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = SpeakerEncoder(path)

    def fail(**_: Any) -> None:
        raise failure

    monkeypatch.setattr(speaker, "_run", fail)
    reason = "Node 9 failed." if failure.args else "MemoryError"
    with pytest.raises(InputError, match=rf"take 16000 samples \(.*{reason}\): too long"):
        speaker.embed(noise(1))
    with pytest.raises(InputError, match="8000 samples are too few for this network"):
        speaker.embed(noise(0.5))


def test_thresholds_are_written_into_a_finished_file(path: Path, good: bytes) -> None:
    before, inner = SpeakerEncoder(path), inflate(path)
    assert before.threshold is None
    write_about(path, thresholds={"eer": {"threshold": 0.31, "eer": 0.02}}, trials="größer")
    after = SpeakerEncoder(path)
    assert after.threshold == 0.31
    assert read_about(path)["trials"] == "größer"
    assert read_about(path) == {
        **before.about,
        "thresholds": {"eer": {"threshold": 0.31, "eer": 0.02}},
        "trials": "größer",
    }
    assert inflate(path) == inner
    np.testing.assert_array_equal(before.embed(noise(1)), after.embed(noise(1)))
    write_about(path, thresholds=None, trials=None)
    assert path.read_bytes() == good


def test_metadata_that_json_cannot_hold_leaves_the_file_alone(path: Path, good: bytes) -> None:
    for value in (float("nan"), object()):
        with pytest.raises(InputError, match="JSON"):
            write_about(path, trials=value)
    assert path.read_bytes() == good
    assert list(path.parent.iterdir()) == [path]


def test_every_flipped_byte_is_noticed(good: bytes) -> None:
    start = good.find(seal.MAGIC)
    places = {*range(0, len(good), 61), *range(start, start + len(seal.BLANK)), *range(64)}
    for place in sorted(places):
        for change in (0x01, 0x80, 0xFF):
            bad = bytearray(good)
            bad[place] ^= change
            with pytest.raises(InputError):
                seal.check(bytes(bad))


def test_every_cut_is_noticed(good: bytes) -> None:
    for length in [*range(0, len(good), 97), *range(80), len(good) - 1]:
        with pytest.raises(InputError):
            seal.check(good[:length])
    for extra in (b"\0", good):
        with pytest.raises(InputError, match="damaged"):
            seal.check(good + extra)


def damaged(good: bytes) -> dict[str, bytes]:
    newer = bytearray(good)
    newer[good.find(seal.MAGIC) + 16] = seal.VERSION + 1
    return {
        "is empty": b"",
        "not a .tflite": bytes(len(good)),
        "not a tfq-sv file": good[:-4].replace(seal.MAGIC, bytes(16)),
        "damaged": good[:-4],
        "checksum": good[:-1] + bytes([good[-1] ^ 1]),
        "upgrade": bytes(newer),
        "no tfq-sv seal": b"\x1c\0\0\0TFL3" + bytes(500),
    }


def test_no_interpreter_sees_a_bad_file(
    path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("the interpreter got a bad file")

    monkeypatch.setattr(encoder, "interpreter", never)
    for message, content in damaged(good).items():
        path.write_bytes(content)
        for action in (SpeakerEncoder, inflate, read_about, write_about):
            with pytest.raises(InputError, match=message) as caught:
                action(path)
            assert str(path) in str(caught.value)


WRONG_METADATA: dict[str, list[Any]] = {
    "input": [None, "audio", 3, "waveform"],
    "compute": ["int4"],
    "feat_dim": [0, -1, 80.5, True, None, "80"],
    "embed_dim": [0, []],
    "sample_rate": [None, 0],
    "frontend": [
        "kaldi",
        {"window": "hann"},
        {"bins": 80},
        80,
        {"num_bins": "80"},
        {"frame_length": 0},
        {"frame_length": 10**9},
        {"preemphasis": None},
        {"snip_edges": 1},
        {"high_freq": 9000},
        {"window": ["hamming"]},
    ],
    "thresholds": [0.3, ["eer"], {"eer": 0.5}, {"eer": {"threshold": "high"}}],
    "inflated_sha256": [None, "", 64 * "g", 64 * "0"],
}


def with_wrong_metadata(path: Path, good: bytes) -> Iterator[bytes]:
    """Files whole and sealed, whose metadata no encoder could work by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "check", lambda about, _: about)
        for field, values in WRONG_METADATA.items():
            for value in values:
                path.write_bytes(good)
                write_about(path, **{field: value})
                yield path.read_bytes()


def mutated(good: bytes, count: int) -> Iterator[bytes]:
    """Cut, bit-flipped, blanked, padded and swapped files."""
    rng = np.random.default_rng(0)
    for number in range(count):
        bad, start = bytearray(good), int(rng.integers(len(good)))
        match number % 5:
            case 0:
                del bad[start:]
            case 1:
                for place in rng.integers(len(good), size=rng.integers(1, 9)):
                    bad[place] ^= 1 << int(rng.integers(8))
            case 2:
                bad[start : start + 4096] = bytes(len(bad[start : start + 4096]))
            case 3:
                bad[start:start] = rng.bytes(int(rng.integers(1, 99)))
            case 4:
                bad = bad[start:] + bad[:start]
        if bad != good:
            yield bytes(bad)


@pytest.mark.slow
def test_a_thousand_bad_files_are_one_clear_line_each(
    path: Path, good: bytes, network: tuple[Any, dict[str, Codebook]]
) -> None:
    foreign = [inflate(path), float32.convert(network[0], "features"), bytes(9), b"RIFF" * 99]
    wrong = list(with_wrong_metadata(path, good))
    bad = [*foreign, *wrong, *damaged(good).values(), *mutated(good, 1000)]
    assert len(bad) >= 1000
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            SpeakerEncoder(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_file_cannot_be_told_wrong_metadata(path: Path, good: bytes) -> None:
    for field, value in {"input": "audio", "thresholds": 0.3}.items():
        with pytest.raises(InputError, match=f"wrong metadata: {field} is"):
            write_about(path, **{field: value})
    assert path.read_bytes() == good


def test_what_does_not_have_its_hash_is_not_handed_out(path: Path, own_cache: Path) -> None:
    write_about(path, inflated_sha256=64 * "0")
    for action in (SpeakerEncoder, inflate):
        with pytest.raises(InputError, match="inflates to other bytes than it says"):
            action(path)
    assert not (own_cache / "tfq-sv" / f"{64 * '0'}.tflite").exists()


def test_inflated_files_are_kept_and_mended(path: Path, own_cache: Path) -> None:
    kept = own_cache / "tfq-sv" / f"{read_about(path)['inflated_sha256']}.tflite"
    kept.unlink(missing_ok=True)
    expected = SpeakerEncoder(path).embed(noise(1))
    whole = kept.read_bytes()
    assert whole == inflate(path)
    kept.write_bytes(whole[:-1])
    np.testing.assert_array_equal(SpeakerEncoder(path).embed(noise(1)), expected)
    assert kept.read_bytes() == whole


def test_the_cache_keeps_what_was_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    contents = [bytes([number]) for number in range(cache.KEPT + 3)]
    names = [hashlib.sha256(content).hexdigest() for content in contents]
    place = tmp_path / "tfq-sv"
    place.mkdir()
    for name in ("other.txt", f".{40 * 'a'}-young.tflite", f".{40 * 'a'}-old.tflite"):
        (place / name).touch()
    os.utime(place / f".{40 * 'a'}-old.tflite", (0, 0))
    for age, (name, content) in enumerate(zip(names, contents, strict=True)):
        assert cache.fetch(name, lambda content=content: content) == content
        os.utime(place / f"{name}.tflite", (1e9 + age, 1e9 + age))
        if age == cache.KEPT - 1:
            cache.fetch(names[0], lambda: pytest.fail("it is there"))  # used now: the youngest
    left = {path.stem for path in place.glob("[0-9a-f]*.tflite")}
    assert left == {names[0], *names[-(cache.KEPT - 1) :]}
    assert not (place / f".{40 * 'a'}-old.tflite").exists()
    assert (place / "other.txt").exists()
    assert (place / f".{40 * 'a'}-young.tflite").exists()


def test_a_cache_that_cannot_be_written_does_no_harm(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = SpeakerEncoder(path).embed(noise(1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file, not a folder
    np.testing.assert_array_equal(SpeakerEncoder(path).embed(noise(1)), expected)


def test_a_user_without_a_home_does_no_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = SpeakerEncoder(path).embed(noise(1))

    def nobody(_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", classmethod(nobody))
    np.testing.assert_array_equal(SpeakerEncoder(path).embed(noise(1)), expected)


@pytest.mark.parametrize("fast", [True, False])
def test_threads_may_share_an_encoder(path: Path, fast: bool) -> None:
    speaker = SpeakerEncoder(path, fast=fast)
    speech = [features.fbank(noise(seconds))[::step] for seconds in (0.5, 2) for step in (1, -1)]
    expected = [speaker.embed(x) for x in speech]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(speaker.embed, 100 * speech))
    np.testing.assert_array_equal(found, 100 * expected)


@pytest.mark.slow
def test_processes_may_open_a_file_at_once(path: Path, tmp_path: Path) -> None:
    program = (
        "import numpy as np; from tfq_sv.export import SpeakerEncoder;"
        f"SpeakerEncoder({str(path)!r}).embed(np.ones(9000, 'float32') / 9)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    started = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(4)]
    assert [process.wait() for process in started] == [0, 0, 0, 0]
    (kept,) = (tmp_path / "cache" / "tfq-sv").iterdir()
    assert kept.read_bytes() == inflate(path)


@pytest.mark.slow
def test_tensorflow_is_a_runtime_too(path: Path) -> None:
    program = (
        "import sys, numpy as np; sys.modules['ai_edge_litert'] = None;"
        "from tfq_sv.export import SpeakerEncoder;"
        f"print(*SpeakerEncoder({str(path)!r}).embed(np.ones((9, 80))));"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    values, loaded = done.stdout.splitlines()
    assert loaded == "True"
    expected = SpeakerEncoder(path).embed(np.ones((9, 80)))
    np.testing.assert_allclose(np.float32(values.split()), expected, atol=1e-5)


def test_a_foreign_network_is_refused(
    path: Path, network: tuple[Any, dict[str, Codebook]], tmp_path: Path
) -> None:
    for foreign in (inflate(path), float32.convert(network[0], "features")):
        path.write_bytes(foreign)
        with pytest.raises(InputError, match="not a tfq-sv file"):
            SpeakerEncoder(path)
    with pytest.raises(InputError, match="does not exist"):
        SpeakerEncoder(tmp_path / "none.tflite")
    with pytest.raises(InputError, match="not a file"):
        inflate(tmp_path)


@pytest.mark.slow
def test_running_a_file_loads_no_tensorflow(path: Path) -> None:
    program = (
        "import sys, numpy as np; from tfq_sv.export import SpeakerEncoder, write_about;"
        f"write_about({str(path)!r}, trials=1); encoder = SpeakerEncoder({str(path)!r});"
        "encoder.embed(np.zeros(9000)); sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
