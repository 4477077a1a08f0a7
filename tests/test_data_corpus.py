import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfq_sv.data import audio
from tfq_sv.data.audio import BadAudioError
from tfq_sv.data.chunks import UNKNOWN, batches
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError


def make_tree(root: Path, *keys: str) -> Path:
    rng = np.random.default_rng(0)
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / key, rng.normal(0, 0.1, 8000), 16000)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "own", "ann/a.wav", "ann/talk/b.flac", "bob/c.wav", "bob/d.wav")


def test_a_tree_of_speaker_folders(tree: Path) -> None:
    corpus = Corpus.read(tree)
    assert list(corpus.paths) == ["ann/a.wav", "ann/talk/b.flac", "bob/c.wav", "bob/d.wav"]
    assert corpus.speaker_ids == ["ann", "bob"]
    assert corpus.speakers["ann/talk/b.flac"] == "ann"


def test_kaldi_lists_win_over_the_tree(tree: Path) -> None:
    (tree / "wav.scp").write_text("u1 ann/a.wav\nu2\tbob/c.wav\n")
    (tree / "utt2spk").write_text("u1 s1\nu2 s2\n")
    corpus = Corpus.read(tree)
    assert corpus.paths == {"u1": tree / "ann/a.wav", "u2": tree / "bob/c.wav"}
    assert corpus.speakers == {"u1": "s1", "u2": "s2"}


def test_the_made_corpus_reads(corpus_dir: Path) -> None:
    corpus = Corpus.read(corpus_dir / "test")
    assert len(corpus.paths) == 18
    trials = Trials.read(corpus_dir / "test" / "trials.txt", corpus)
    same = [a == b for a, b in zip(*trials.speakers(corpus), strict=True)]
    assert trials.labels.tolist() == same


def test_bad_folders_are_named(tree: Path, corpus_dir: Path) -> None:
    (tree / "empty").mkdir()
    cases = [
        (tree / "missing", "does not exist"),
        (tree / "empty", "holds no .3gp, .aac, .*.flac, .*.wav, .webm, .wma file"),
        (tree / "ann", "lies in no speaker's folder"),
        (corpus_dir, "holds two corpora"),
    ]
    for folder, message in cases:
        with pytest.raises(InputError, match=message):
            Corpus.read(folder)


def test_train_and_test_are_no_speakers(tmp_path: Path) -> None:
    both = make_tree(tmp_path / "both", "train/ann/a.wav", "train/bob/b.wav", "test/eve/x/c.wav")
    with pytest.raises(InputError, match=r"holds two corpora; give .*train or .*test"):
        Corpus.read(both)
    assert Corpus.read(both / "train").speaker_ids == ["ann", "bob"]
    named = make_tree(tmp_path / "named", "train/a.wav", "train/x/b.wav", "test/c.wav")
    with pytest.raises(InputError, match="lies in no speaker's folder"):
        Corpus.read(named)
    assert Corpus.read(named, speaker_level=1).speaker_ids == ["test", "train"]
    assert Corpus.read(named, unlabelled=True).speakers == {}


def test_a_name_that_is_not_utf_8_is_spelled_out(tree: Path, tmp_path: Path) -> None:
    try:
        (tree / "bob").rename(tree / os.fsdecode(b"ren\xe9"))
    except OSError:
        pytest.skip("this file system keeps UTF-8 names only")
    corpus = Corpus.read(tree)
    assert corpus.speaker_ids == ["ann", r"ren\xe9"]
    assert all(path.is_file() for path in corpus.paths.values())
    trials = tmp_path / "trials"
    trials.write_text("1 ann/a.wav ann/talk/b.flac\n0 ann/a.wav ren\\xe9/c.wav\n")
    assert len(Trials.read(trials, corpus)) == 2


def test_lists_as_other_programs_write_them(tree: Path) -> None:
    (tree / "trials").write_bytes(
        b"\xef\xbb\xbf1 ann/a.wav ann/talk/b.flac\r\n0 ann/a.wav bob/c.wav\r\n"
    )
    assert len(Trials.read(tree / "trials", Corpus.read(tree))) == 2
    with pytest.raises(InputError, match="ann is a folder; name a list"):
        Trials.read(tree / "ann", Corpus.read(tree))


def test_bad_lists_are_named(tree: Path) -> None:
    (tree / "wav.scp").write_text("u1 ann/a.wav\nu2 bob/c.wav\n")
    with pytest.raises(InputError, match="no utt2spk beside it"):
        Corpus.read(tree)
    for text, message in [
        ("u1 s1\n", "no speaker for 1 of 2 utterances .first: u2"),
        ("u1\n", "utt2spk:1: expected `key value`"),
        ("u1 s1\nu1 s2\n", "utt2spk:2: u1 is a duplicate"),
    ]:
        (tree / "utt2spk").write_text(text)
        with pytest.raises(InputError, match=message):
            Corpus.read(tree)
    (tree / "utt2spk").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        Corpus.read(tree)


@pytest.mark.parametrize(
    "text",
    [
        "1 ann/a.wav ann/talk/b.flac\n0 ann/a.wav bob/c.wav\n",
        "ann/a.wav ann/talk/b.flac target\nann/a.wav bob/c.wav nontarget\n",
    ],
)
def test_both_forms_of_trials(tree: Path, text: str) -> None:
    (tree / "trials").write_text(text)
    trials = Trials.read(tree / "trials", Corpus.read(tree))
    assert trials.enroll == ["ann/a.wav", "ann/a.wav"]
    assert trials.test == ["ann/talk/b.flac", "bob/c.wav"]
    assert trials.labels.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no trial"),
        ("1 ann/a.wav\n", "trials:1: expected"),
        ("2 ann/a.wav bob/c.wav\n", "trials:1: expected"),
        ("1 ann/a.wav x.wav\n1 y.wav bob/c.wav\n", r"names 2 utterances .*first: x\.wav"),
    ],
)
def test_bad_trials_are_named(tree: Path, text: str, message: str) -> None:
    (tree / "trials").write_text(text)
    with pytest.raises(InputError, match=message):
        Trials.read(tree / "trials", Corpus.read(tree))


def test_pairs_for_a_corpus_without_a_list(tree: Path) -> None:
    corpus = Corpus.read(tree)
    trials = Trials.all_pairs(corpus)
    assert trials.labels.sum() == 2
    assert len(trials) == 4
    same = [a == b for a, b in zip(*trials.speakers(corpus), strict=True)]
    assert trials.labels.tolist() == same
    assert len(set(zip(trials.enroll, trials.test, strict=True))) == 4
    again = Trials.all_pairs(corpus)
    assert (again.enroll, again.test) == (trials.enroll, trials.test)


@pytest.mark.parametrize("spaced", [False, True])
def test_drawn_pairs_are_kept_for_another_day(spaced: bool, tmp_path: Path) -> None:
    names = ["ann/a 1.wav", "ann/a 2.wav", "bob/b 1.wav", "bob/b 2.wav"]
    made = make_tree(tmp_path / "tree", *(x if spaced else x.replace(" ", "") for x in names))
    corpus = Corpus.read(made)
    drawn = Trials.all_pairs(corpus)
    drawn.write(tmp_path / "trials.txt")
    kept = Trials.read(tmp_path / "trials.txt", corpus)
    assert (kept.enroll, kept.test) == (drawn.enroll, drawn.test)
    np.testing.assert_array_equal(kept.labels, drawn.labels)


def test_pairs_need_two_speakers(tmp_path: Path) -> None:
    corpus = Corpus.read(make_tree(tmp_path / "one", "ann/a.wav", "ann/b.wav"))
    with pytest.raises(InputError, match="1 speakers with 2 utterances"):
        Trials.all_pairs(corpus)


def test_batches_that_cannot_be(tree: Path) -> None:
    corpus = Corpus.read(tree)
    for settings, message in [
        ({"batch_size": 0}, "batch_size must be positive, not 0"),
        ({"seconds": 0}, "seconds must be from 0.2 to 3600, not 0"),
        ({"seconds": float("nan")}, "not nan"),
        ({"seconds": 1e9}, "seconds must be"),
        ({"seed": -1}, "seed must not be negative, as -1 is"),
    ]:
        with pytest.raises(InputError, match=message):
            batches(corpus, **settings)


def test_batches_depend_on_seed_and_number_alone(tree: Path) -> None:
    corpus = Corpus.read(tree)

    def take(seed: int, start: int, count: int) -> list[np.ndarray]:
        stream = batches(corpus, batch_size=3, seconds=0.3, seed=seed, start=start)
        return [next(stream)[0] for _ in range(count)]

    whole = take(0, 0, 5)
    np.testing.assert_array_equal(whole[3], take(0, 3, 1)[0])
    assert whole[0].shape == (3, 4800)
    assert np.abs(whole[0] - take(1, 0, 1)[0]).max() > 0


def test_each_epoch_sees_every_utterance_once(tree: Path) -> None:
    corpus = Corpus.read(tree)
    stream = batches(corpus, batch_size=2, seconds=0.3)
    labels = np.concatenate([next(stream)[1] for _ in range(6)])
    for epoch in labels.reshape(3, 4):
        assert sorted(epoch) == [0, 0, 1, 1]


def test_short_utterances_are_repeated(tree: Path) -> None:
    waveforms, _ = next(batches(Corpus.read(tree), batch_size=1, seconds=1.0))
    np.testing.assert_array_equal(waveforms[0, :8000], waveforms[0, 8000:])


def corrupt(path: Path) -> None:
    """A good header, and noise where the audio was; libsndfile finds out when it decodes."""
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes(len(whole) - 200))


def test_bad_recordings_are_replaced_whatever_the_threads_do(tree: Path) -> None:
    corrupt(tree / "ann/talk/b.flac")
    soundfile.write(tree / "bob/c.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    corpus = Corpus.read(tree)
    assert not audio.survey(corpus.paths).bad  # their headers are good

    def take(start: int, count: int, workers: int = 2) -> tuple[list[np.ndarray], dict]:
        stream = batches(corpus, batch_size=3, seconds=0.3, start=start, workers=workers)
        return [next(stream)[0] for _ in range(count)], stream.skipped

    whole, skipped = take(0, 6)
    assert {key: error.kind for key, error in skipped.items()} == {
        "ann/talk/b.flac": "not audio",
        "bob/c.wav": "NaN",
    }
    for other in (take(0, 6, workers=1)[0], take(0, 4)[0] + take(4, 2)[0]):
        for a, b in zip(whole, other, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(BadAudioError, match=r"talk/b\.flac|bob/c\.wav"):
        for _, _ in zip(range(4), batches(corpus, batch_size=2, strict=True), strict=False):
            pass


def test_a_recording_that_is_bad_in_part_is_the_same_whenever_it_is_drawn(tmp_path: Path) -> None:
    """What has been skipped before must not change a batch: a resumed run would differ."""
    rng = np.random.default_rng(0)
    for speaker in ("ann", "bob", "eve"):
        (tmp_path / speaker).mkdir()
        samples = rng.normal(0, 0.1, 32000).astype(np.float32)
        if speaker == "eve":
            samples[20000:24000] = np.nan
        soundfile.write(tmp_path / speaker / "a.wav", samples, 16000, subtype="FLOAT")
    corpus = Corpus.read(tmp_path)
    stream = batches(corpus, batch_size=3, seconds=0.3)
    whole = [next(stream)[0] for _ in range(12)]
    assert stream.skipped
    for start in range(1, 12):
        again = next(batches(corpus, batch_size=3, seconds=0.3, start=start))[0]
        np.testing.assert_array_equal(again, whole[start])


def test_utterances_without_a_speaker_among_others_are_unknown(tree: Path) -> None:
    corpus = Corpus.read(tree)
    key = next(iter(corpus.paths))
    speakers = {name: who for name, who in corpus.speakers.items() if name != key}
    mixed = Corpus(corpus.root, {k: corpus.paths[k] for k in (key, *speakers)}, speakers)
    classes = set(next(batches(mixed, batch_size=len(mixed.paths), seconds=0.3))[1].tolist())
    assert classes == {UNKNOWN, *range(len(mixed.speaker_ids))}


def test_batches_of_nothing_are_refused(tree: Path) -> None:
    corpus = Corpus.read(tree)
    with pytest.raises(InputError, match="has no recording"):
        batches(corpus.without(corpus.paths), batch_size=2)


def test_no_good_recording_at_all_is_an_error(tree: Path) -> None:
    for path in tree.rglob("*.*"):
        soundfile.write(path, np.zeros(8000), 16000)
    with pytest.raises(InputError, match=r"no good recording: .* is silent"):
        next(batches(Corpus.read(tree), batch_size=2, seconds=0.3))


def test_both_parts_of_voxceleb(tmp_path: Path) -> None:
    make_tree(tmp_path / "dev/wav", "id10002/v/1.wav", "id10003/v/1.wav")
    make_tree(tmp_path / "test/wav", "id10270/v/1.wav")
    corpus = Corpus.read(tmp_path)
    assert list(corpus.paths) == ["id10002/v/1.wav", "id10003/v/1.wav", "id10270/v/1.wav"]
    assert Corpus.read(tmp_path / "test").speaker_ids == ["id10270"]
    make_tree(tmp_path / "test/wav", "id10002/v/1.wav")
    with pytest.raises(InputError, match="1 keys stand in two of its parts"):
        Corpus.read(tmp_path)


def test_voxceleb2_as_aac_and_converted_in_place(tmp_path: Path) -> None:
    make_tree(tmp_path / "vox2_dev_aac/aac", "id1/v/1.wav")
    for name in ("1.m4a", "2.m4a"):
        (tmp_path / "vox2_dev_aac/aac/id1/v" / name).write_bytes(b"x")
    assert list(Corpus.read(tmp_path).paths) == ["id1/v/1.wav", "id1/v/2.m4a"]


def test_spk2utt_will_do(tree: Path) -> None:
    (tree / "wav.scp").write_text("u1 ann/a.wav\nu2 bob/c.wav\nu3 bob/d.wav\n")
    (tree / "spk2utt").write_text("ann u1\nbob u2 u3\n")
    assert Corpus.read(tree).speakers == {"u1": "ann", "u2": "bob", "u3": "bob"}
    (tree / "spk2utt").write_text("ann u1 u2\nbob u2 u3\n")
    with pytest.raises(InputError, match="u2 has two speakers, ann and bob"):
        Corpus.read(tree)
    (tree / "wav.scp").write_text("u1 sox a.wav -t wav - |\nu2 bob/c.wav\n")
    with pytest.raises(InputError, match=r"commands for 1 of 2 utterances .first: u1"):
        Corpus.read(tree)


def test_enrolments_by_a_map(tree: Path) -> None:
    corpus = Corpus.read(tree)
    (tree / "map").write_text("ann-enroll ann/a.wav ann/talk/b.flac\nother bob/d.wav\n")
    (tree / "trials").write_text("ann-enroll bob/c.wav 0\nann-enroll ann/a.wav 1\n")
    trials = Trials.read(tree / "trials", corpus, enroll_map=tree / "map")
    assert trials.models == {"ann-enroll": ["ann/a.wav", "ann/talk/b.flac"]}
    assert trials.utterances == ["ann/a.wav", "ann/talk/b.flac", "bob/c.wav"]
    assert trials.speakers(corpus) == (["ann", "ann"], ["bob", "ann"])
    less = trials.without({"ann/a.wav"})
    assert (less.enroll, less.test) == (["ann-enroll"], ["bob/c.wav"])
    assert less.models == {"ann-enroll": ["ann/talk/b.flac"]}
    assert len(trials.without({"ann/a.wav", "ann/talk/b.flac"})) == 0
    (tree / "trials").write_text("who bob/c.wav 0\n")
    with pytest.raises(
        InputError, match=r"names 1 enrolments that .*map does not contain .first: who"
    ):
        Trials.read(tree / "trials", corpus, enroll_map=tree / "map")


def test_lists_that_are_not_quite_right(tree: Path) -> None:
    corpus = Corpus.read(tree)
    (tree / "trials").write_text("1 ann/a.wav x.wav\n0 ann/a.wav bob/c.wav\n" * 2)
    trials = Trials.read(tree / "trials", corpus, strict=False)
    assert trials.repeated == 2
    assert len(trials.without({"x.wav"})) == 2
    (tree / "trials").write_text("1 ann/a.wav bob/c.wav\n0 ann/a.wav bob/c.wav\n")
    with pytest.raises(InputError, match="calls 1 trials both target and nontarget"):
        Trials.read(tree / "trials", corpus)
    (tree / "trials").write_text("1 x.wav bob/c.wav\n")
    with pytest.raises(InputError, match="names 1 utterances that"):
        Trials.read(tree / "trials", corpus, strict=False)
