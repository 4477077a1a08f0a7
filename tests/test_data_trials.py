"""Trial lists as programs write them, names as they spell them, labels that cannot be right."""

import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tfq_sv.cli import reproduce
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.key_lookup import KeyLookup
from tfq_sv.data.pairs import different_speakers, same_speaker
from tfq_sv.data.trial_list import read_list
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError

A, B, C = "ann/a.wav", "ann/b.wav", "bob/c.wav"


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    root = tmp_path / "c"
    for key in (A, B, C, "bob/d.wav"):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(key.encode())
    return Corpus.read(root)


FORMS = {
    "VoxCeleb": f"1 {A} {B}\n0 {A} {C}\n",
    "Kaldi": f"{A} {B} target\n{A} {C} nontarget\n",
    "tgt, imp": f"{A} {B} tgt\n{A} {C} imp\n",
    "Non-Target": f"{A} {B} Target\n{A} {C} Non-Target\n",
    "floats": f"{A} {B} 1.0\n{A} {C} 0.0\n",
    "booleans": f"{A},{B},True\n{A},{C},False\n",
    "heading": f"enroll,test,label\n{A},{B},1\n{A},{C},0\n",
    "heading of a label's name": f"enroll test target\n{A} {B} target\n{A} {C} nontarget\n",
    "heading in front": f"is_target\tutt1\tutt2\n1\t{A}\t{B}\n0\t{A}\t{C}\n",
    "semicolons": f"{A};{B};same\n{A};{C};different\n",
    "quoted": f'"label","file1","file2"\n"1","{A}","{B}"\n"0","{A}","{C}"\n',
    "scores behind": f"1 {A} {B} 0.73\n0 {A} {C} -0.12\n",
    "scores between": f"{A} {B} 0.73 target\n{A} {C} 0.12 nontarget\n",
    "scores of 1 and 0": f"{A} {B} 1.0 target\n{A} {C} 0.0 nontarget\n",
    "our own scores": (
        f"{A} {B} 0.73 target 1.0 2.0 0.1 0.2\n{A} {C} 0.1 nontarget 1.0 2.0 0.1 0.2\n"
    ),
    "another column": f"path1,path2,gender,label\n{A},{B},f,1\n{A},{C},f,0\n",
    "bars": f"{A}|{B}|1\n{A}|{C}|0\n",
    "quoted, with spaces": f'"{A}" "{B}" "1"\n"{A}"  "{C}" "0"\n',
    "words with spaces": f"{A}\t{B}\tSame speaker\n{A}\t{C}\tDifferent speaker\n",
    "NumPy's floats": f"{A} {B} 1.000000000000000000e+00\n{A} {C} 0.000000000000000000e+00\n",
    "pandas' numbers": f",enroll,test,label\n0,{A},{B},1\n1,{A},{C},0\n",
    "pandas' numbers again": f"Unnamed: 0,enroll,test,label\n0,{A},{B},1\n1,{A},{C},0\n",
    "titles of all kinds": f"speaker_1,speaker_2,ground_truth\n{A},{B},1\n{A},{C},0\n",
    "y_true": f"file_a,file_b,y_true,y_score\n{A},{B},1,0.3\n{A},{C},0,0.1\n",
    "NIST's key": (
        f"modelid\tsegmentid\tside\ttargettype\n{A}\t{B}\ta\ttarget\n{A}\t{C}\ta\tnontarget\n"
    ),
    "comments": f"# label enroll test\n1 {A} {B}\n0 {A} {C}\n",
    "dots": f"1 ./{A} ./{B}\n0 .//{A} ./ann/../{C}\n",
    "backslashes": "1 ann\\a.wav ann\\b.wav\n0 ann\\a.wav bob\\c.wav\n",
    "other suffix": "1 ann/a.flac ann/b.flac\n0 ann/a.flac bob/c.flac\n",
    "no suffix": "1 ann/a ann/b\n0 ann/a bob/c\n",
    "folders in front": f"1 data/wav/{A} data/wav/{B}\n0 data/wav/{A} data/wav/{C}\n",
    "names alone": "1 a b\n0 a c\n",
    "names and suffix": "1 a.wav b.wav\n0 a.wav c.wav\n",
    "another case": "1 Ann/A.WAV ann/b.wav\n0 ANN/a.wav bob/c.wav\n",
    "pandas' numbers alone": f"0,{A},{B},1\n1,{A},{C},0\n",
    "titles of another language": f"fichier1;fichier2;cible\n{A};{B};1\n{A};{C};0\n",
    "titles in Chinese": f"注册,测试,标签\n{A},{B},1\n{A},{C},0\n",
    "a question": f"File 1,File 2,Same Speaker?\n{A},{B},yes\n{A},{C},no\n",
    "p, n": f"{A} {B} p\n{A} {C} n\n",
    "accept, reject": f"{A} {B} accept\n{A} {C} reject\n",
    "mated, non-mated": f"{A} {B} mated\n{A} {C} non-mated\n",
    "same, other": f"{A} {B} same\n{A} {C} other\n",
    "intra, inter": f"{A} {B} intra\n{A} {C} inter\n",
    "same_spk": f"{A} {B} same_spk\n{A} {C} diff_spk\n",
    "not same": f"{A} {B} isSame\n{A} {C} not_same\n",
    "negative pair": f"{A} {B} positive-pair\n{A} {C} NegativePair\n",
    "a spreadsheet's language": f"{A};{B};WAHR\n{A};{C};FALSCH\n",
    "another title with same": f"x1,x2,same_sex,same_speaker\n{A},{B},0,1\n{A},{C},1,0\n",
    "a decision beside": f"file1,file2,match_decision,label\n{A},{B},0,1\n{A},{C},0,0\n",
    "absolute": f"1 ROOT/{A} ROOT/{B}\n0 ROOT/{A} ROOT/{C}\n",
}  # fmt: skip
SAID = set(FORMS) - {"VoxCeleb", "Kaldi", "comments", "quoted, with spaces"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_same_list(corpus: Corpus, name: str, encoding: str) -> None:
    text = FORMS[name].replace("ROOT", str(corpus.root))
    path = corpus.root / "trials"
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    trials = Trials.read(path, corpus)
    assert (trials.enroll, trials.test) == ([A, A], [B, C])
    assert trials.labels.tolist() == [True, False]
    assert bool(trials.notes) == (name in SAID), trials.notes


def test_names_are_the_same_however_their_letters_are_composed(tmp_path: Path) -> None:
    """macOS splits letters and accents, which other systems do not."""
    whole, split = (unicodedata.normalize(form, "zoë/é.wav") for form in ("NFC", "NFD"))
    for on_disk, listed in ((whole, split), (split, whole)):
        root = tmp_path / str(len(on_disk))
        for key in (on_disk, A):
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(key.encode())
        assert KeyLookup(Corpus.read(root)).find(listed) == on_disk
    for number, key in enumerate((whole, split)):
        file = tmp_path / "both" / key.replace(".wav", f"{number}.wav")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]))
    assert Corpus.read(tmp_path / "both").speaker_ids == ["zoë"]


def test_links_to_recordings_name_them(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "door").symlink_to(corpus.root)
    assert KeyLookup(corpus).find(f"{tmp_path}/door/{A}") == A


def test_names_that_may_mean_two_recordings_are_unknown(corpus: Corpus) -> None:
    (corpus.root / "bob" / "a.wav").write_bytes(b"x")
    (corpus.root / "trials").write_text("1 a b\n0 a c\n")
    with pytest.raises(InputError, match=r"names 1 utterances that .*first: a"):
        Trials.read(corpus.root / "trials", Corpus.read(corpus.root))


@pytest.mark.parametrize("mark", [",", ";", "|", " ", ", "])
def test_names_with_separators_are_read_as_they_were_written(mark: str, tmp_path: Path) -> None:
    speakers = {
        f"{name}/{i}.wav": name for name in (f"Doe{mark}Ann", f"Roe{mark}Bob") for i in "12"
    }
    corpus = Corpus(tmp_path, {key: tmp_path / key for key in speakers}, speakers)
    trials = Trials.all_pairs(corpus)
    trials.write(tmp_path / "trials.txt")
    again = Trials.read(tmp_path / "trials.txt", corpus)
    assert (again.enroll, again.test) == (trials.enroll, trials.test)
    np.testing.assert_array_equal(again.labels, trials.labels)


def test_numbers_may_be_names(tmp_path: Path) -> None:
    for text in ("1 1001 1002\n0 1001 1003\n", "1001 1002 1\n1001 1003 0\n"):
        (tmp_path / "trials").write_text(text)
        found = read_list(tmp_path / "trials")
        assert (found.enroll, found.test, found.labels) == (
            ["1001", "1001"], ["1002", "1003"], [True, False],
        )  # fmt: skip
        assert not found.note
    (tmp_path / "trials").write_text("1 0 1\n0 1 1\n")  # names 0 and 1, as far as one can tell
    assert read_list(tmp_path / "trials", {"0", "1"}.__contains__).labels == [True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("enroll test label\n", "lists no trial"),
        ("a b 0.12\nc d 0.7\n", "trials:1: expected .*its last column holds scores, no labels"),
        ("a b\n", "trials:1: expected"),
        ("a/1.wav b/1.wav maybe\na/1.wav b/2.wav 1\n", "trials:1: expected .*maybe"),
        ("1 a b\n1 a c\nx y z\n", "trials:3: expected .*found 'x y z'"),
        (f'1 a b\n1 a c\n1 a "{"c" * 200_000}"\n', "trials:3: expected .{,300}$"),
        (f'1,a,b\n1,a,c\n1,a,"{"c" * 200_000}"\n', "trials:3: expected .{,300}$"),
        ("1 a b\n1 a\n1 a c\n", "trials:2: expected"),
        ("a b 1 1\na c 0 1\n", "trials: columns 3 and 4 may both be labels, and do not agree"),
        ("same_day,file1,file2,same_sex\n1,a,b,1\n1,a,c,0\n", "columns 1 and 4 may both be"),
        *[
            (f"{title},file1,file2\n0,a,b\n1,a,c\n", f"column 1 is called '{title}', where 1 means")
            for title in ("different", "is_different", "impostor", "non-target", "distance")
        ],
    ],
)
def test_lines_that_are_no_trials_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "trials").write_text(text)
    with pytest.raises(InputError, match=message):
        read_list(tmp_path / "trials")


def read(corpus: Corpus, text: str) -> Trials:
    (corpus.root / "trials").write_text(text)
    return Trials.read(corpus.root / "trials", corpus)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"1 {A} {B}\n0 {B} {A}\n0 {A} {C}\n", "calls 1 trials both target and nontarget .first: "),
        (f"1 {A} {B}\n0 ./{A} {B}\n", "calls 1 trials both"),
        (f"1 {A} {B}\n0 {A} {A}\n", "1 trials of a recording with itself nontarget .first: ann/a"),
        (f"0 {A} {B}\n1 {A} {C}\n1 {B} {C}\n", "3 of 3 labels .*the wrong way round"),
    ],
)
def test_labels_that_cannot_be_are_refused(corpus: Corpus, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(corpus, text)


def test_labels_that_contradict_some_speakers_are_doubted(corpus: Corpus) -> None:
    (note,) = read(corpus, f"1 {A} {B}\n1 {A} {C}\n0 {B} {C}\n0 {C} bob/d.wav\n").notes
    assert "2 of 4 labels contradict the speakers" in note
    assert "1 targets of two speakers, 1 nontargets of one" in note
    (note,) = read(corpus, f"1 {A} {A}\n1 {A} {B}\n0 {A} {C}\n").notes
    assert "1 trials compare a recording with itself" in note


def test_labels_are_checked_where_one_name_is_unknown(corpus: Corpus) -> None:
    listed = corpus.root / "unknown.txt"
    listed.write_text(f"1 {A} {C}\n0 {A} {B}\n1 {A} eve/lost.wav\n")
    with pytest.raises(InputError, match=r"2 of 2 labels contradict .* the wrong way round"):
        Trials.read(listed, corpus, strict=False)
    listed.write_text(f"1 {A} {B}\n0 {A} {C}\n1 {A} eve/lost.wav\n")
    assert len(Trials.read(listed, corpus, strict=False)) == 3


def test_labels_that_contradict_each_other_are_doubted(corpus: Corpus) -> None:
    """Where no speaker is known."""
    nobody = Corpus(corpus.root, corpus.paths, {})
    assert not read(nobody, f"1 {A} {B}\n0 {A} {C}\n0 {B} {C}\n").notes
    (note,) = read(nobody, f"1 {A} {B}\n1 {B} {C}\n0 {A} {C}\n0 {A} bob/d.wav\n").notes
    assert "1 nontarget trials compare recordings" in note
    (note,) = read(nobody, f"0 {A} {B}\n0 {C} bob/d.wav\n" + "".join(
        f"1 {x} {y}\n" for x in (A, B) for y in (C, "bob/d.wav"))).notes  # fmt: skip
    assert "the wrong way round" in note


def test_enrolments_of_several_speakers_are_doubted(corpus: Corpus) -> None:
    (corpus.root / "map").write_text(f"m {A} {C}\nn ./{B}\n")
    (corpus.root / "trials").write_text(f"m ann/b 1\nn {C} 0\n")
    trials = Trials.read(corpus.root / "trials", corpus, enroll_map=corpus.root / "map")
    assert trials.models == {"m": [A, C], "n": [B]}
    assert any("1 enrolments have recordings of several speakers" in note for note in trials.notes)


def test_recordings_of_their_own_enrolment_are_doubted(corpus: Corpus) -> None:
    (corpus.root / "map").write_text(f"m {A} {B}\nn {C}\n")
    (corpus.root / "trials").write_text(f"m {B} 1\nm {C} 0\nn bob/d 1\n")
    trials = Trials.read(corpus.root / "trials", corpus, enroll_map=corpus.root / "map")
    assert any("1 trials test a recording of their own enrolment" in x for x in trials.notes)


def test_reproduce_says_how_it_read_its_lists(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus.root / "own.txt").write_text(f"{A} {B} tgt\n{A} {C} imp\n{B} {C} tgt\n")
    flags = SimpleNamespace(trials=[str(corpus.root / "own.txt")], strict=False)
    monkeypatch.setattr(reproduce, "FLAGS", flags)
    assert list(reproduce._trials(corpus)) == ["own"]
    said = capsys.readouterr().out
    assert "target is tgt" in said
    assert "1 of 3 labels contradict the speakers" in said


def every_pair(speakers: list[int], *, same: bool) -> set[tuple[int, int]]:
    n = len(speakers)
    return {
        (i, j) for i in range(n) for j in range(i + 1, n) if (speakers[i] == speakers[j]) == same
    }


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_drawn_from_all_pairs_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    speakers = rng.integers(0, 4, rng.integers(2, 14)).tolist()
    for draw, same in ((same_speaker, True), (different_speakers, False)):
        possible = every_pair(speakers, same=same)
        drawn = [tuple(pair) for pair in draw(speakers, 10**6, rng).tolist()]
        assert drawn == sorted(possible)
        few = [tuple(pair) for pair in draw(speakers, 5, rng).tolist()]
        assert len(few) == len(set(few)) == min(5, len(possible))
        assert set(few) <= possible


def test_every_pair_is_as_likely() -> None:
    speakers, rng = [0, 0, 0, 1, 1, 2], np.random.default_rng(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(4000):
        for pair in different_speakers(speakers, 3, rng).tolist():
            counts[tuple(pair)] = counts.get(tuple(pair), 0) + 1
    assert counts.keys() == every_pair(speakers, same=False)
    expected = 4000 * 3 / len(counts)
    assert all(abs(count - expected) < 6 * expected**0.5 for count in counts.values())


def test_one_speaker_of_many_does_not_take_all_pairs() -> None:
    speakers = [0] * 2000 + [1] * 10 + [2] * 10 + [3]
    rng = np.random.default_rng(0)
    drawn = same_speaker(speakers, 1000, rng)
    whose = np.array(speakers)[drawn[:, 0]]
    assert np.bincount(whose).tolist() == [910, 45, 45]


def test_pairs_of_a_million_utterances_need_no_more_than_their_number() -> None:
    """2,000 and 1, 13,100 of one, a million: all by arithmetic, never by listing pairs."""
    for counts in ([2000, 1], [13_100, 2], [1] * 500_000 + [500_000]):
        speakers = np.repeat(np.arange(len(counts)), counts)
        rng = np.random.default_rng(0)
        same, other = same_speaker(speakers, 10_000, rng), different_speakers(speakers, 10_000, rng)
        assert len(same) == 10_000
        assert len(other) == min(10_000, nontargets(counts))
        assert (speakers[same[:, 0]] == speakers[same[:, 1]]).all()
        assert (speakers[other[:, 0]] != speakers[other[:, 1]]).all()
        assert len(np.unique(same, axis=0)) == len(same)
        assert len(np.unique(other, axis=0)) == len(other)


def nontargets(counts: list[int]) -> int:
    total = sum(counts)
    return (total * total - sum(n * n for n in counts)) // 2
