"""The scripts that make the tables in docs/benchmarks.md, on the smallest of what they can do."""

import argparse
import gzip
import importlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tf_keras as keras
from train_small import small

from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.errors import InputError
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.training.augment import Augmenter, find_noises, find_rirs
from tfq_sv.verification import decision

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_files_are_within_their_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DF-ResNets have the most layers for their weights, and 3 bits the most ops per layer."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    assert importlib.import_module("file_sizes").main(["DF_ResNet56"], [3])
    said = capsys.readouterr().out
    assert "| DF_ResNet56 | 3 bit |" in said


@pytest.mark.slow
def test_parity_goes_on_from_where_it_was(
    network: keras.Model,
    corpus_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    parity = importlib.import_module("parity")
    monkeypatch.setattr(parity, "BATCHES", 1)
    network.save(tmp_path / "network.keras")
    arguments = argparse.Namespace(
        network=str(tmp_path / "network.keras"),
        corpus=str(corpus_dir / "test"),
        trials=None,
        train=str(corpus_dir / "train"),
        bits=[4],
        out=str(tmp_path / "parity.json"),
    )
    parity.main(arguments)
    said = capsys.readouterr().out
    assert [line.split(" | ")[1:3] for line in said.splitlines() if line.startswith("| 4")] == [
        ["float32", "embed"],
        ["float32", "inflate"],
        ["int8", "embed"],
        ["int8", "inflate"],
    ]
    monkeypatch.setattr(parity, "quantized", None)  # nothing is left to do
    parity.main(arguments)
    assert capsys.readouterr().out == said
    arguments.network = "another.keras"
    with pytest.raises(InputError, match=r"another\.keras.* give another --out"):
        parity.main(arguments)


def test_the_picture_of_a_published_network_has_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    plot = importlib.import_module("published_plot")
    folder = BENCHMARKS.parent / "docs/benchmarks"
    printouts = [folder / f"published{which}.txt" for which in ("", "_1bit", "_mixed", "_noise")]
    texts = [path.read_text() for path in printouts]
    rows = set(re.findall(r"^\| ([a-z]*[\d.]+ \| [a-z]+) \|", "\n".join(texts), re.MULTILINE))
    assert len(rows) > 20
    assert sum(map(len, plot.points(texts).values())) == len(rows)
    out = tmp_path / "published.png"
    plot.main(argparse.Namespace(printouts=printouts, out=out))
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_table_of_a_published_network(
    network: keras.Model,
    corpus_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    published = importlib.import_module("published")
    network.save(tmp_path / "network.keras")
    rows = ["2:round", "mixed2:speech", "trellis2:distilled"]
    arguments = argparse.Namespace(
        network=str(tmp_path / "network.keras"),
        speech=str(corpus_dir / "train"),
        test=str(corpus_dir / "test"),
        out=str(tmp_path / "published"),
        minutes=0.5,
        distill=[str(corpus_dir / "train")],
        steps=1,
        learning_rate=1e-4,
        rows=",".join(rows),
    )
    published.main(arguments)
    said = capsys.readouterr().out
    table = [line.strip("| ").split(" | ") for line in said.splitlines() if line[:1] == "|"]
    found = {":".join(cells[:2]): cells[2:] for cells in table[2:]}
    assert list(found) == rows
    assert 0 < float(found["mixed2:speech"][0]) <= float(found["2:round"][0])  # megabytes
    assert float(found["mixed2:speech"][1]) > float(found["2:round"][1])  # cosine
    monkeypatch.setattr(published, "quantized", None)  # nothing is left to do
    published.main(arguments)
    assert capsys.readouterr().out == said


@pytest.mark.slow
def test_how_far_runtimes_are_apart(
    network: keras.Model,
    corpus_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The converter's int8 file has an op that the oldest runtime does not know."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module("old_runtimes")
    monkeypatch.delitem(script.OLD, "ai-edge-litert==1.2.0")
    network.save(tmp_path / "network.keras")
    parts = {part: str(corpus_dir / part) for part in ("train", "test")}
    model = str(tmp_path / "network.keras")
    script.main(
        argparse.Namespace(
            model=model,
            corpus=parts["test"],
            train=parts["train"],
            bits=[2],
            trellis=[0.5],
            utterances=3,
        )
    )
    said = capsys.readouterr().out
    assert "4 files inflated: 8 of 8 times the same bytes" in said
    table = [re.split("  +", line) for line in said.splitlines()]
    assert table[1][2] == "tflite-runtime 2.14.0"
    rows = {row[0]: row[1:] for row in table[3:] if len(row) > 1}
    assert "0.5 bit trellis, int8 compute, inflated" in rows
    assert rows["dynamic-range int8"][1] == "does not load"
    for name, cells in rows.items():
        for cell in cells if name != "dynamic-range int8" else ():
            assert float(cell.split(", ")[1]) < (3 if "int8" in name else 0.1), (name, cell)


@pytest.mark.slow
def test_the_table_of_codebooks(
    corpus_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    table = importlib.import_module("codebook_eer")
    options = {"steps": 2, "batch_size": 4, "seconds": 0.5}
    monkeypatch.setitem(table.NETWORKS, "ResNet18", ({}, options))
    monkeypatch.setattr(table.models, "build", lambda name: small())
    mixed = ["2 bit mixed, fine-tuned", "2 bit mixed, MSFT"]
    cells = ["float", "2 bit, calibrated", "1 bit sign(w), fine-tuned", *mixed]
    arguments = ["codebook_eer.py", f"--corpus={corpus_dir}", f"--out={tmp_path}", "--steps=1"]
    arguments.append("--network=ResNet18")
    monkeypatch.setattr("sys.argv", [*arguments, "--seeds", "0", "--cells", *cells])
    table.main()
    said = capsys.readouterr().out
    rows = {
        line.split("  ")[0]: line
        for line in said.split("\n\n")[0].splitlines()
        if line.startswith(tuple(cells))
    }
    assert list(rows) == cells
    assert f"{mixed[1]} minus {mixed[0]}" in said.split("\n\n")[1]
    assert rows["float"].split()[-1] == "1.0000"  # no noise to speak of
    assert 1 > float(rows[cells[1]].split()[-2]) > 0  # the cosine
    for done in ("make", "train"):  # nothing is left to do
        monkeypatch.setattr(table, done, lambda *_, **__: pytest.fail("made again"))
    shutil.copytree(tmp_path / "ResNet18-0", tmp_path / "ResNet18-1")  # another seed, as it were
    plot = f"--plot={tmp_path / 'sizes.png'}"
    monkeypatch.setattr("sys.argv", [*arguments, plot, "--seeds", "0", "1", "--cells", *cells])
    table.main()
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")
    rate = rows["float"].split()[1]
    assert f" {rate} {rate} " in capsys.readouterr().out


@pytest.mark.slow
def test_what_tells_the_loss_of_eer(
    corpus_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module("sensitivity_eer")
    small().save(tmp_path / "network.keras")
    settings = {"corpus": corpus_dir, "out": tmp_path / "alone", "probes": 2, "bits": 1}
    script.main(networks=[tmp_path / "network.keras"], **settings)
    said = capsys.readouterr().out
    ranks, recipes = said.split("\n\n")
    rows = [line.split("  ")[0] for line in ranks.splitlines()[4:]]
    assert rows == [
        "hessian", "hessian, not over n", "fisher", "fisher, not over n", "distortion",
        "1 - cosine of the test speech",
    ]  # fmt: skip
    rows = [tuple(line.split()[:2]) for line in recipes.splitlines()[3:]]
    measures = ("hessian", "fisher", "distortion")
    assert rows == [
        (bits, kind)
        for bits in ("1.5", "2", "3")
        for kind in (() if bits == "1.5" else ("uniform",)) + measures
    ]
    monkeypatch.setattr(script.tfq_sv, "quantize", None)  # nothing is left to do
    script.main(networks=[tmp_path / "network.keras"], **settings)
    assert capsys.readouterr().out == said


def test_training_takes_the_noises_and_rooms(
    train_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    noises = importlib.import_module("noises")
    monkeypatch.setattr(noises, "COUNT", 2)
    monkeypatch.setattr(noises, "SECONDS", 1)
    folders = {"noises": tmp_path / "noises", "rooms": tmp_path / "rooms"}
    noises.main(argparse.Namespace(corpus=str(train_corpus.root), seed=0, **folders))
    kinds, rooms = find_noises(folders["noises"]), find_rirs(folders["rooms"])
    assert [len(kinds[kind]) for kind in ("noise", "speech", "music")] == [2, 2, 2]
    chunk = audio.read(kinds["speech"][0]).samples
    for changed in (Augmenter(noises=kinds, probability=1), Augmenter(rirs=rooms, probability=1)):
        result = changed(chunk, 1.0, np.random.default_rng(0))
        assert np.isfinite(result).all()
        assert np.abs(result - chunk).max() > 0
        assert not changed.skipped


def test_formants_move_and_pitch_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    moved = importlib.import_module("voices").formants_moved
    hertz = np.arange(audio.SAMPLE_RATE // 2 + 1)  # of one second, a bin per Hz
    formant = 0.1 * np.exp(-(((hertz - 2000) / 500) ** 2)) + 0.001
    breath = np.random.default_rng(0).normal(size=audio.SAMPLE_RATE)
    whisper = np.fft.irfft(formant * np.fft.rfft(breath)).astype(np.float32)
    np.testing.assert_allclose(moved(whisper, 1.0), whisper, atol=1e-4)
    power = np.abs(np.fft.rfft(moved(whisper, 1.2))) ** 2
    assert 1.15 < (power @ hertz) / power.sum() / 2000 < 1.25

    harmonic = hertz % 125 == 0
    buzz = np.fft.irfft(300 * formant * harmonic).astype(np.float32)
    power = np.abs(np.fft.rfft(moved(buzz, 1.2))) ** 2
    assert power[harmonic].sum() > 0.99 * power.sum()


def test_every_copy_is_a_voice_of_its_own(
    train_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    voices = importlib.import_module("voices")
    options = {"corpus": [str(train_corpus.root)], "copies": 2, "seed": 0}
    voices.main(argparse.Namespace(out=tmp_path / "a", **options))
    made = Corpus.read(tmp_path / "a")
    assert len(made.paths) == len(made.speaker_ids) == 2 * len(train_corpus.paths)
    voices.main(argparse.Namespace(out=tmp_path / "b", **options))
    again = Corpus.read(tmp_path / "b")
    for key, path in made.paths.items():
        assert path.read_bytes() == again.paths[key].read_bytes()


def test_scores_against_references_are_those_of_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    conditions = importlib.import_module("conditions")
    rng = np.random.default_rng(0)
    whole = Embeddings(["a", "b", "c"], rng.normal(size=(3, 8)).astype(np.float32))
    units = np.array([decision.unit(one) for one in rng.normal(size=(4, 8))])
    references = np.array([decision.unit(whole[key]) for key in whole])
    expected = [decision.score(references, unit) for unit in units]
    np.testing.assert_allclose(conditions.against(whole, list(whole), units), expected, atol=1e-6)


def test_perfect_llrs_come_near_the_least_with_many_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    perfect = importlib.import_module("conditions").perfect
    rng = np.random.default_rng(0)

    def drawn(each: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(2 * each) < each
        return rng.normal(np.where(labels, 2, -2), 2), labels  # LLRs of deviation 2

    few, many = drawn(50), drawn(20_000)
    assert 1 <= perfect([many]) < 1.005 < 1.03 < perfect([few])
    assert perfect([few, many]) < perfect([few])
    apart = np.where(few[1], 9.0, -9.0), few[1]
    assert perfect([apart]) == 0


def test_men_against_women_are_counted_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    shipped = importlib.import_module("shipped")
    (tmp_path / "spk2gender").write_text("ann f\nbob m\ncid m\neve f\nkid m\n")
    (tmp_path / "spk2age").write_text("ann 30\nbob 16\ncid 40\neve 20\nkid 15\n")
    both = shipped.adults(tmp_path / "spk2gender", tmp_path / "spk2age")
    assert both == (["bob", "cid"], ["ann", "eve"])
    assert shipped.adults(tmp_path / "spk2gender", tmp_path / "none")[0] == ["bob", "cid", "kid"]
    speakers = {f"{name}-{i}": name for name in ("ann", "bob", "cid", "eve", "kid") for i in (1, 2)}
    vectors = np.random.default_rng(0).normal(size=(len(speakers), 3)).astype(np.float32)
    result = argparse.Namespace(
        extraction=argparse.Namespace(embeddings=Embeddings(list(speakers), vectors))
    )
    corpus = argparse.Namespace(speakers=speakers, root=tmp_path)
    found = shipped.accepted_by_speakers(result, corpus, *both, 0.2)
    of = dict(zip(speakers, vectors, strict=True))
    for i, man in enumerate(both[0]):
        for j, woman in enumerate(both[1]):
            pairs = [(of[f"{man}-{a}"], of[f"{woman}-{b}"]) for a in (1, 2) for b in (1, 2)]
            accepted = [decision.score(decision.unit(a)[None], decision.unit(b)) for a, b in pairs]
            assert list(found[i, j]) == [sum(score >= 0.2 for score in accepted), 4]
    assert 0 < found[..., 0].sum() < found[..., 1].sum()
    assert "2 men against 2 women" in shipped.said(found, 0.2)


def test_the_real_voices_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    voices = importlib.import_module("real_voices")
    lists = gzip.decompress(voices.LISTS.read_bytes()).decode()
    lines = [line.split() for line in lists.splitlines()]
    download, libri = tmp_path / "download", tmp_path / "train-clean-100"
    for fields in lines:
        if fields[0] in ("train", "test"):
            place = download / "WAVE" / f"SPEAKER{fields[1][3:]}" / f"{fields[2]}.WAV"
        elif fields[0] == "librispeech":
            place = libri.joinpath(*fields[1].split("-")[:2], f"{fields[1]}.flac")
        else:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    options = argparse.Namespace(
        speechocean762=download, librispeech=libri, out=tmp_path / "out", first=4
    )
    voices.main(options)
    counts = {"speechocean762/train": (625, 125), "speechocean762/test": (1000, 125)}
    counts |= {"train": (500, 100), "held": (125, 25), "librispeech": (251, 251)}
    for folder, expected in counts.items():
        corpus = Corpus.read(tmp_path / "out" / folder)
        assert (len(corpus.paths), len(corpus.speaker_ids)) == expected, folder
    test = Corpus.read(tmp_path / "out" / "speechocean762" / "test")
    trials = Trials.read(test.root / "trials.txt", test)
    assert (len(trials), int(trials.labels.sum())) == (27_500, 3_500)
    assert not trials.notes  # the labels are those of the speakers
    of = dict(line.split() for line in (test.root / "spk2gender").read_text().splitlines())
    age = dict(line.split() for line in (test.root / "spk2age").read_text().splitlines())
    groups = {speaker: (of[speaker], int(age[speaker]) > 15) for speaker in of}
    whose = trials.speakers(test)
    assert whose is not None
    alike = [groups[a] == groups[b] and a != b for a, b in zip(*whose, strict=True)]
    assert sum(alike) == 16_000
    next(iter(download.rglob("*.WAV"))).unlink()
    with pytest.raises(InputError, match=r"1 recordings do not exist \(first: .*\.WAV\)"):
        voices.main(options)


def test_what_rounding_costs_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module("trellis_distortion")
    kernel = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    monkeypatch.setattr(script, "kernels", lambda name: [kernel])
    monkeypatch.setattr(script, "random_kernels", lambda degrees: [kernel])
    picture = tmp_path / "trellis.png"
    script.main(argparse.Namespace(networks=["some"], plot=str(picture)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    (two,) = (line.split() for line in lines[:8] if line.startswith("2 "))
    means, bound = [float(two[i]) for i in (1, 3, 5)], float(two[7])
    assert max(means[:2]) < means[2] < bound == 12.04


def test_every_mutation_is_of_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    mutations = importlib.import_module("mutations")
    for one in mutations.MUTATIONS:
        found = (mutations.ROOT / one.file).read_text(encoding="utf-8").count(one.old)
        assert found == 1, (one.name, found)
