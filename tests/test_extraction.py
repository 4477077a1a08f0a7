import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfq_sv import cli
from tfq_sv.data import audio
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.conditions import Changed
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.evaluation.extraction import Cache, embed_recording, extract, from_file
from tfq_sv.evaluation.measurement import evaluate, measure


class Loudness:
    """An encoder that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        self.asked += 1
        return np.array([waveform.std(), waveform[0], 1.0], np.float32)


def tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(np.arange(int(rate * seconds)) / 5)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three good recordings of each of two speakers, and everything that can be wrong."""
    root = tmp_path / "speech"
    for speaker in ("ann", "bob"):
        (root / speaker).mkdir(parents=True)
        for i, rate in enumerate((8000, 16000, 48000)):
            soundfile.write(root / speaker / f"{i}.wav", tone(rate), rate)
    soundfile.write(root / "ann/2.wav", np.stack([tone(16000), tone(16000)], axis=1), 16000)
    bad = root / "bob"
    (bad / "corrupt.wav").write_text("no audio")
    (bad / "empty.wav").write_bytes(b"")
    soundfile.write(bad / "silent.wav", np.zeros(8000), 16000)
    soundfile.write(bad / "short.wav", tone(16000, 0.05), 16000)
    soundfile.write(bad / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    (bad / "missing.wav").write_bytes(b"")
    found = Corpus.read(root)
    (bad / "missing.wav").unlink()
    return found


def test_bad_recordings_are_skipped_with_their_reason(corpus: Corpus) -> None:
    found = extract(Loudness(), corpus, [*corpus.paths, "bob/unknown.wav"])
    assert sorted(found.embeddings) == [f"{s}/{i}.wav" for s in ("ann", "bob") for i in range(3)]
    assert {key: error.kind for key, error in found.skipped.items()} == {
        "bob/corrupt.wav": "not audio",
        "bob/empty.wav": "not audio",
        "bob/silent.wav": "silent",
        "bob/short.wav": "too short",
        "bob/nan.wav": "NaN",
        "bob/missing.wav": "missing",
        "bob/unknown.wav": "unknown",
    }
    for key, error in found.skipped.items():
        assert key.split("/")[1] in str(error)
    assert found.changes == {
        "resampled from 8000 Hz": 2,
        "resampled from 48000 Hz": 1,
        "2 channels mixed down": 1,
    }
    with pytest.raises(InputError, match=r"corrupt\.wav cannot be read"):
        extract(Loudness(), corpus, list(corpus.paths), strict=True)


def test_a_part_of_a_long_recording_is_heard_once(tmp_path: Path) -> None:
    heard = []

    class Listener(Loudness):
        def embed(self, waveform: np.ndarray) -> np.ndarray:
            heard.append(len(waveform))
            return super().embed(waveform)

    noise = np.random.default_rng(0).normal(0, 0.1, 130 * 16000)
    soundfile.write(tmp_path / "long.wav", noise, 16000)
    embed_recording(Changed(Listener(), lambda samples: samples[:16000]), tmp_path / "long.wav")
    assert heard == [16000]
    heard.clear()
    embed_recording(Listener(), tmp_path / "long.wav")
    assert len(heard) > 1
    assert sum(heard) >= 130 * 16000
    noise[: 61 * 16000] = 0
    soundfile.write(tmp_path / "long.wav", noise, 16000)
    with pytest.raises(BadAudioError, match=r"long\.wav is silent in its first minute"):
        embed_recording(Changed(Listener(), lambda samples: samples), tmp_path / "long.wav")
    assert np.isfinite(embed_recording(Listener(), tmp_path / "long.wav").embedding).all()


def test_trials_that_need_a_bad_recording_are_counted(corpus: Corpus) -> None:
    enroll = ["ann/0.wav", "ann/0.wav", "bob/1.wav", "bob/silent.wav"]
    test = ["ann/1.wav", "bob/1.wav", "bob/nan.wav", "bob/nan.wav"]
    trials = Trials(enroll, test, np.array([True, False, True, True]), "four")
    result = evaluate(Loudness(), corpus, trials)
    assert (len(result.trials), result.trials_skipped) == (2, 2)
    assert result.extraction is not None
    assert len(result.extraction.skipped) == 2
    with pytest.raises(InputError, match=r"is silent|NaN"):
        evaluate(Loudness(), corpus, trials, strict=True)
    lost = Trials(["bob/silent.wav"] * 2, ["ann/0.wav"] * 2, np.array([True, False]), "lost")
    with pytest.raises(InputError, match=r"no trial is left of 2 from lost: .* is silent"):
        evaluate(Loudness(), corpus, lost)
    one_kind = Trials(enroll[:1], test[:1], np.array([True]), "one kind")
    with pytest.raises(InputError, match="one kind: none of the 1 trials is a nontarget trial"):
        evaluate(Loudness(), corpus, one_kind)


def test_a_network_that_answers_nan_is_no_embedding(corpus: Corpus) -> None:
    class Broken:
        def embed(self, waveform: np.ndarray) -> np.ndarray:
            return np.full(3, np.nan, np.float32)

    found = extract(Broken(), corpus, ["ann/0.wav"])
    assert not found.embeddings
    assert found.skipped["ann/0.wav"].kind == "without embedding"


def test_a_cache_spares_what_has_not_changed(corpus: Corpus, tmp_path: Path) -> None:
    keys = [key for key in corpus.paths if key.startswith("ann")]
    encoder = Loudness()
    first = extract(encoder, corpus, keys, cache=Cache(tmp_path / "kept", "one"))
    again = extract(encoder, corpus, keys, cache=Cache(tmp_path / "kept", "one"))
    assert (encoder.asked, first.reused, again.reused) == (3, 0, 3)
    np.testing.assert_array_equal(again.embeddings.matrix, first.embeddings.matrix)
    soundfile.write(str(corpus.paths["ann/0.wav"]), 0.1 * tone(8000), 8000)  # the same length
    changed = extract(encoder, corpus, keys, cache=Cache(tmp_path / "kept", "one"))
    assert (encoder.asked, changed.reused) == (4, 2)
    assert changed.embeddings["ann/0.wav"][0] < 0.2 * first.embeddings["ann/0.wav"][0]
    assert extract(encoder, corpus, keys, cache=Cache(tmp_path / "kept", "one")).reused == 3
    with pytest.raises(InputError, match="kept holds embeddings of another network"):
        Cache(tmp_path / "kept", "two")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("hello")
    with pytest.raises(InputError, match="not empty, and no cache"):
        Cache(tmp_path / "full", "one")


def test_shards_merge_and_interruptions_cost_one_part(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [key for key in corpus.paths if key[4].isdigit()]
    whole = extract(Loudness(), corpus, keys).embeddings
    for share in (keys[3:], keys[:3]):
        extract(Loudness(), corpus, share, cache=Cache(tmp_path / "kept", "one"))
    merged = extract(Loudness(), corpus, keys, cache=Cache(tmp_path / "kept", "one"))
    assert merged.reused == 6
    assert merged.embeddings.names == keys
    np.testing.assert_array_equal(merged.embeddings.matrix, whole.matrix)

    class Interrupted(Loudness):
        def embed(self, waveform: np.ndarray) -> np.ndarray:
            if self.asked == 5:
                raise KeyboardInterrupt
            return super().embed(waveform)

    monkeypatch.setattr("tfq_sv.evaluation.extraction.PART", 2)
    with pytest.raises(KeyboardInterrupt):
        extract(Interrupted(), corpus, keys, cache=Cache(tmp_path / "other", "one"))
    resumed = extract(Loudness(), corpus, keys, cache=Cache(tmp_path / "other", "one"))
    assert resumed.reused == 5


def test_what_others_are_about_to_write_is_no_part(corpus: Corpus, tmp_path: Path) -> None:
    folder, hidden = tmp_path / "kept", ".1f0c-abc.stamps"
    folder.mkdir()
    (folder / ".network-abc.json").touch()  # a process that makes the cache at the same time
    extract(Loudness(), corpus, ["ann/0.wav"], cache=Cache(folder, "one"))
    (folder / hidden).write_bytes(next(folder.glob("*.stamps")).read_bytes())  # was killed
    assert extract(Loudness(), corpus, ["ann/0.wav"], cache=Cache(folder, "one")).reused == 1


def test_processes_may_make_a_cache_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes between two looks at the folder."""
    looks = Path.iterdir

    def late(folder: Path) -> Iterator[Path]:
        monkeypatch.setattr(Path, "iterdir", looks)
        Cache(folder, "one")
        return looks(folder)

    for network in ("one", "two"):
        folder = tmp_path / network
        folder.mkdir()
        monkeypatch.setattr(Path, "iterdir", late)
        if network == "one":
            Cache(folder, network)
        else:
            with pytest.raises(InputError, match="embeddings of another network"):
                Cache(folder, network)


def test_what_is_skipped_holds_no_samples(corpus: Corpus) -> None:
    """As the frames of its traceback would, a minute of 4 MB each."""
    heard = []

    class Refuses(Loudness):
        def embed(self, waveform: np.ndarray) -> np.ndarray:
            heard.append(weakref.ref(waveform.base if waveform.base is not None else waveform))
            raise InputError("refused")

    found = extract(Refuses(), corpus, ["ann/0.wav", "ann/1.wav", "bob/nan.wav"])
    gc.collect()
    assert len(found.skipped) == 3
    assert [reference() for reference in heard] == [None, None]
    assert all(not error.__traceback__ for error in found.skipped.values())
    bad = audio.survey(corpus.paths).bad
    assert bad
    assert all(not error.__traceback__ for error in bad.values())


@pytest.mark.slow
def test_embeddings_are_in_memory_once(corpus: Corpus, tmp_path: Path) -> None:
    """As VoxCeleb2's million are: of a gigabyte, there is no second one beside it."""
    count, size, cache = 20_000, 256, Cache(tmp_path / "kept", "one")
    keys = [f"{number:06d}" for number in range(count)]
    many = Corpus(corpus.root, dict.fromkeys(keys, corpus.paths["ann/0.wav"]), {})
    stamp = audio.stamp(corpus.paths["ann/0.wav"])
    rng = np.random.default_rng(0)
    for first in range(0, count - 1, 2000):
        part = keys[first : min(first + 2000, count - 1)]
        vectors = rng.normal(size=(len(part), size)).astype(np.float32)
        cache.write(Embeddings(part, vectors), dict.fromkeys(part, stamp))

    class Wide(Loudness):
        def embed(self, waveform: np.ndarray) -> np.ndarray:
            return np.ones(size, np.float32)

    matrix, names = 4 * size * count, 400 * count
    for wanted, hold, most in ((keys, True, 1.2), (keys, False, 0.2), (keys[::1000], True, 0.2)):
        tracemalloc.start()
        found = extract(Wide(), many, wanted, cache=cache, hold=hold)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.count == len(wanted)
        assert peak < most * matrix + names, (hold, peak)
        if hold:
            assert found.embeddings.names == wanted
            np.testing.assert_array_equal(found.embeddings[keys[-2000]], vectors[-1999])
    found.embeddings.write(tmp_path / "few.ark")
    Embeddings(keys, rng.normal(size=(count, size))).write(tmp_path / "all.ark")
    tracemalloc.start()
    assert len(Embeddings.read(tmp_path / "all.ark")) == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * matrix + names, peak


def test_names_that_kaldi_cannot_keep(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a b' has a space"):
        extract(Loudness(), corpus, ["a b"], cache=Cache(tmp_path / "kept", "one"))


def test_embeddings_of_somebody_else(corpus: Corpus, tmp_path: Path) -> None:
    keys = ["ann/0.wav", "ann/1.wav", "bob/0.wav"]
    matrix = np.array([[1.0, 0], [1.0, 0.1], [0, 1.0]])
    Embeddings(keys, matrix).write(tmp_path / "x.npy")
    trials = Trials(
        ["ann/0.wav"] * 3, [*keys[1:], "bob/1.wav"], np.array([True, False, False]), "three"
    )
    result = measure(from_file(tmp_path / "x.npy", trials.utterances), corpus, trials)
    assert (result.eer, result.trials_skipped) == (0.0, 1)
    with pytest.raises(InputError, match=r"1 utterances have no embedding \(first: bob/1\.wav\)"):
        from_file(tmp_path / "x.npy", trials.utterances, strict=True)
    with pytest.raises(InputError, match="AS-norm needs a cohort"):
        measure(from_file(tmp_path / "x.npy", keys), corpus, trials, normalize=True)


def test_somebody_elses_utterances_that_the_corpus_lacks(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody says who speaks in them, so intervals cannot count them."""
    keys = [*corpus.paths, "stranger"]
    rng = np.random.default_rng(0)
    Embeddings(keys, rng.normal(size=(len(keys), 4))).write(tmp_path / "x.ark")
    rows = [(a, b) for i, a in enumerate(keys) for b in keys[:i]]
    of = corpus.speakers
    (tmp_path / "list.txt").write_text(
        "".join(f"{int(of.get(a) == of.get(b))} {a} {b}\n" for a, b in rows)
    )
    trials = Trials.read(tmp_path / "list.txt", corpus, strict=False)
    found = from_file(tmp_path / "x.ark", trials.utterances, corpus=corpus)
    assert [(key, error.kind) for key, error in found.skipped.items()] == [("stranger", "unknown")]
    result = measure(found, corpus, trials)
    assert result.trials_skipped == len(corpus.paths)
    every = from_file(tmp_path / "x.ark", trials.utterances)
    assert measure(every, corpus, trials).interval is None
    command = ["evaluate", f"--corpus={corpus.root}", f"--trials={tmp_path}/list.txt"]
    assert cli.main([*command, f"--embeddings={tmp_path}/x.ark"]) == 0
    assert f"stranger: {corpus.root} has no stranger" in capsys.readouterr().out
