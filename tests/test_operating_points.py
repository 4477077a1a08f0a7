"""Operating points: rates with intervals, short tests, and tfq-sv threshold."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import write

import tfq_sv
from tfq_sv import cli
from tfq_sv.cli import threshold
from tfq_sv.data import conditions
from tfq_sv.data.audio import BadAudioError, read
from tfq_sv.data.corpus import Corpus
from tfq_sv.errors import InputError
from tfq_sv.evaluation import operating_points
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.evaluation.score_calibration import Calibration
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.export import read_about
from tfq_sv.verification import decision, quality

RESOURCES = Path(__file__).parents[1] / "export/android/verifier/src/androidTest/resources"


def corpus_of(speakers: int, recordings: int) -> Corpus:
    who = {f"{s}-{r}": f"{s}" for s in range(speakers) for r in range(recordings)}
    return Corpus(Path("c"), {key: Path(key) for key in who}, who)


def test_rates_are_counts_and_intervals_hold_them() -> None:
    rng = np.random.default_rng(0)
    corpus = corpus_of(12, 3)
    trials = operating_points.every_pair(corpus)
    assert (int(trials.labels.sum()), len(trials)) == (12 * 3, 36 * 35 // 2)
    scores = rng.normal(2.0 * trials.labels)
    whose = trials.speakers(corpus)
    assert whose is not None
    for at, (far, frr) in zip(
        (0.5, 1.5), operating_points.rates(scores, trials.labels, whose, [0.5, 1.5]), strict=True
    ):
        misses = [s < at for s, same in zip(scores, trials.labels, strict=True) if same]
        alarms = [s >= at for s, same in zip(scores, trials.labels, strict=True) if not same]
        assert frr.value == pytest.approx(sum(misses) / len(misses))
        assert far.value == pytest.approx(sum(alarms) / len(alarms))
        assert far.low < far.value < far.high
        assert frr.low < frr.value < frr.high


def test_the_interval_narrows_with_the_root_of_the_speakers() -> None:
    rng = np.random.default_rng(1)
    shares = []
    for speakers in (20, 80):
        corpus = corpus_of(speakers, 4)
        trials = operating_points.every_pair(corpus)
        whose = trials.speakers(corpus)
        assert whose is not None
        scores = rng.normal(1.5 * trials.labels)
        ((_, frr),) = operating_points.rates(scores, trials.labels, whose, [0.5])
        shares.append((frr.high - frr.low) / frr.value)
    assert shares[0] / shares[1] == pytest.approx(2.0, rel=0.35)


def test_too_few_speakers_are_refused() -> None:
    with pytest.raises(InputError, match=r"9 speakers .* record 1 more"):
        operating_points.every_pair(corpus_of(9, 2))


def test_scores_are_those_of_decisions() -> None:
    rng = np.random.default_rng(2)
    corpus = corpus_of(10, 2)
    keys = list(corpus.paths)
    whole, short = (Embeddings(keys, rng.normal(size=(20, 8))) for _ in range(2))
    trials = operating_points.every_pair(corpus)
    found = operating_points.pair_scores(whole, short, trials)
    for one, enroll, test in list(zip(found, trials.enroll, trials.test, strict=True))[:20]:
        assert one == pytest.approx(cosine(whole[enroll], short[test]), abs=1e-6)
        reference = decision.unit(whole[enroll])[None]
        assert one == pytest.approx(decision.score(reference, decision.unit(short[test])), abs=1e-6)
    kept = operating_points.tested_on(trials, set(keys[:3]))
    assert set(kept.test) <= set(keys[:3])
    assert len(kept) == sum(key in keys[:3] for key in trials.test)


def test_several_references_are_others_than_the_tested_one() -> None:
    rng = np.random.default_rng(6)
    corpus = corpus_of(10, 4)
    corpus = corpus.without({"9-2", "9-3"})  # who has two
    keys = list(corpus.paths)
    whole, short = (Embeddings(keys, rng.normal(size=(len(keys), 8))) for _ in range(2))
    pairs = operating_points.every_pair(corpus)
    trials = operating_points.with_references(pairs, corpus, 3)
    # A target trial leaves three of four recordings; of the speaker with two there is none.
    left = [i for i, key in enumerate(pairs.enroll) if not key.startswith("9-")]
    np.testing.assert_array_equal(trials.labels, pairs.labels[left])
    found = operating_points.pair_scores(whole, short, trials)
    assert {*trials.speakers(corpus)[0]} == {f"{s}" for s in range(9)}  # type: ignore[index]
    for one, place, enroll, test in zip(found, left, trials.enroll, trials.test, strict=True):
        references = trials.models[enroll]
        assert references[0] == pairs.enroll[place]
        assert test == pairs.test[place]
        assert len({*references, test}) == 4
        assert len({key.split("-")[0] for key in references}) == 1
        units = np.array([decision.unit(whole[key]) for key in references])
        assert one == pytest.approx(decision.score(units, decision.unit(short[test])), abs=1e-6)
    assert operating_points.with_references(pairs, corpus, 1) is pairs


def test_the_loudest_part_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    wave = rng.normal(size=50).astype(np.float32)
    parts = [wave[i : i + 7] for i in range(44)]
    best = max(parts, key=lambda part: float(np.square(part, dtype=np.float64).sum()))
    np.testing.assert_array_equal(conditions.loudest(wave, 7), best)
    np.testing.assert_array_equal(conditions.loudest(wave, 50), wave)
    with pytest.raises(BadAudioError, match="51 are asked for"):
        conditions.loudest(wave, 51)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten speakers, each a buzz of its own pitch, three recordings of 1.2 s."""
    root = tmp_path_factory.mktemp("voices")
    rng = np.random.default_rng(4)
    for speaker in range(10):
        for number in range(3):
            pitch = 90 + 17 * speaker + rng.uniform(-2, 2)
            folder = root / f"s{speaker}"
            folder.mkdir(exist_ok=True)
            write(folder / f"{number}.wav", _buzz(rng, pitch))
    return root


def _buzz(rng: np.random.Generator, pitch: float) -> np.ndarray:
    """1.2 s of harmonics that swell three times per second, with some noise."""
    time = np.arange(19200) / 16000
    phases = rng.uniform(0, 6, 20)
    parts = [np.sin(6.28 * pitch * (k + 1) * time + phases[k]) for k in range(20)]
    wave = 0.03 * np.sum(parts, axis=0) * (0.6 + 0.4 * np.sin(6.28 * 3 * time))
    return (wave + rng.normal(0, 0.01, 19200)).astype(np.float32)


def test_threshold_measures_and_stores(
    voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copy(RESOURCES / "golden.tflite", tmp_path / "model.tflite")
    page = tmp_path / "page.html"
    command = ["threshold", f"--model={model}", f"--corpus={voices}", "--json", "--quiet"]
    assert cli.main([*command, "--store", f"--report={page}"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    about = read_about(model)
    assert about["thresholds"]["eer"]["threshold"] == found["thresholds"]["eer"]
    assert about["thresholds"]["far_1e-3"]["threshold"] is None
    assert about["trials"]["target"] == 30
    assert about["calibration"] is found["calibration"] is None  # of ten speakers
    assert "no calibration: " in said.err
    assert "trials lie on the wrong side, and 10 of each are needed" in said.err
    assert f"eer  {found['thresholds']['eer']:.4f}" in said.err
    assert "too few nontarget trials for far_1e-2 and far_1e-3" in said.err
    assert found["rates"]["1 s"] is not None
    assert found["rates"]["2 s"] is None
    far, frr = (found["rates"]["whole"]["eer"][kind][0] for kind in ("far", "frr"))
    assert far == pytest.approx(frr, abs=0.05)
    assert page.read_text().count("data:image/png") == 2


def test_threshold_calibrates_where_there_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """24 speakers so alike that a small network takes many for another."""
    rng = np.random.default_rng(5)
    for speaker in range(24):
        pitch = rng.uniform(100, 200)
        for number in range(3):
            folder = tmp_path / f"voices/s{speaker}"
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / f"{number}.wav", _buzz(rng, pitch + rng.uniform(-30, 30)))
    model = shutil.copy(RESOURCES / "golden.tflite", tmp_path / "model.tflite")
    command = ["threshold", f"--model={model}", f"--corpus={tmp_path / 'voices'}", "--store"]
    assert cli.main([*command, "--json", "--quiet"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)["calibration"]
    assert 0 < found["min_cllr"] <= found["cllr"]
    assert f"calibration: Cllr {found['cllr']:.4f}, at least {found['min_cllr']:.4f}" in said.err
    assert read_about(model)["calibration"] == found
    ann, bob, enrolled = RESOURCES / "ann-1.wav", RESOURCES / "bob.wav", tmp_path / "people.json"
    verifier = tfq_sv.SpeakerVerifier(model)
    verifier.enroll("ann", [ann], check=False)
    verifier.save(enrolled)
    same, other = (verifier.verify("ann", recording).llr for recording in (ann, bob))
    assert same is not None
    assert other is not None
    assert same > other
    seconds = quality.measure(read(ann).samples).seconds
    calibration = Calibration.of_file({"calibration": found})
    assert calibration
    assert calibration.most_references == 2  # a third recording is left to be tested
    assert " all durations and 1 to 2 references together)" in said.err
    assert same == pytest.approx(float(calibration.llr(1.0, seconds)), abs=1e-3)
    verifier.enroll("both", [ann, bob], check=False)
    both = verifier.verify("both", ann)
    assert both.llr == pytest.approx(float(calibration.llr(both.score, seconds, 2)), abs=1e-3)
    command = ["verify", f"--model={model}", f"--enrolled={enrolled}", "--speaker=ann", str(ann)]
    assert cli.main(command) == 0
    assert f"LLR        {same:+.2f}" in capsys.readouterr().out


def test_speech_is_counted_in_all_of_a_long_recording(tmp_path: Path) -> None:
    """Whose first minute may be silent."""
    noise = np.random.default_rng(0).normal(0, 0.1, 91 * 16000).astype(np.float32)
    noise[: 61 * 16000] = 0
    write(tmp_path / "late.wav", noise)
    corpus = Corpus.of_files([tmp_path / "late.wav"])
    (key,) = corpus.paths
    assert threshold._net_speech(corpus, [key])[None][key] == pytest.approx(30, abs=0.1)


def test_threshold_refuses_too_few_speakers(
    voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for speaker in ("s0", "s1"):
        shutil.copytree(voices / speaker, tmp_path / "few" / speaker)
    model = f"--model={RESOURCES / 'golden.tflite'}"
    assert cli.main(["threshold", model, f"--corpus={tmp_path / 'few'}"]) == 1
    assert "2 speakers with two recordings" in capsys.readouterr().err


def test_of_many_recordings_those_of_the_pairs_are_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Further references included: as many as recordings, there are no embeddings."""
    rng, asked = np.random.default_rng(0), set()
    for speaker in range(12):
        for number in range(12):
            file = tmp_path / f"c/id{speaker:02}/{number}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, (0.02 + 0.01 * speaker) * rng.normal(size=8000), 16000)

    class Level:
        def embed(self, waveform: np.ndarray) -> np.ndarray:
            asked.add(waveform[:9].tobytes())
            level = float(np.log(waveform.std()))
            return np.float32([np.cos(level), np.sin(level), 0.01 * waveform[0]])

    monkeypatch.setattr(threshold, "open_encoder", lambda name: Level())
    drawn = partial(operating_points.every_pair, limit=40)
    monkeypatch.setattr(operating_points, "every_pair", drawn)
    assert cli.main(["threshold", "--model=level", f"--corpus={tmp_path}/c"]) == 0
    assert "80 trials, 80 pairs of" in capsys.readouterr().out
    assert 60 < len(asked) < 144
