"""Readers and hostile inputs for them: good files, and what mutation makes of those.

`fuzz.py` runs them by the thousand, the tests a few dozen of each. `hostile_networks` has the same
for networks and their settings.
"""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import soundfile

from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.embeddings import Embeddings
from tfq_sv.verification import enrolment_file

Rng = np.random.Generator

# Numbers that lengths and counts in files overflow by.
_NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1]
_WORDS = [b"", b" ", b"\n", b"\0", b"|", b"-", b":0", b"[0:1]", b"../", b"/dev/zero", b"nan"]
_WORDS += [b"1e999", b"-1", b"true", b"\xff\xfe", b"{", b"]", b"'", b"&a *a", b"x" * 5000]
_WORDS += [b"!!python/name:os.system", "é\u2028".encode(), b"99999999999999999999"]
_WORDS += [b"9" * 5000, b"2026-13-45", b"[" * 100_000, b'{"a":' * 100_000]
_VALUES = [
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    10**30,
    "",
    "x",
    "a\nb",
    [],
    {},
    [[]],
    {"a": 1},
    "9" * 5000,
]


@dataclass(frozen=True)
class Reader:
    """What reads a file.

    Attributes:
        read: reads the file at a path; raises InputError or returns.
        good: files that it reads, as (name, content).
        mutate: makes a hostile content of a good one; bytes are flipped, cut and so on by default.
    """

    read: Callable[[Path], Any]
    good: list[tuple[str, bytes]]
    mutate: Callable[[bytes, Rng], bytes] | None = None

    def hostile(self, seed: list[int]) -> tuple[str, bytes]:
        """The name and the content of one hostile file."""
        rng = np.random.default_rng(seed)
        name, content = self.good[rng.integers(len(self.good))]
        return name, (self.mutate or flip)(content, rng)


def flip(content: bytes, rng: Rng) -> bytes:
    """One to four changes: bits, numbers, words, cuts, repeats and swaps."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        # Headers come first, and matter most.
        at = int(rng.integers(len(data) + 1) * (rng.random() if rng.random() < 0.7 else 1))
        size = int(rng.choice([1, 2, 4, 8, 16, 64, 512, 4096]))
        match rng.integers(8):
            case 0 if at < len(data):
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                number = int(rng.choice(np.array(_NUMBERS, object)))
                order = "little" if rng.random() < 0.5 else "big"
                data[at : at + size] = (number % 256**size).to_bytes(size, order)
            case 2:
                data[at:at] = rng.choice(np.array([*_WORDS, None], object)) or b"%s"
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = data[at : at + size] * int(rng.integers(1, 4))
            case 5:
                data[at : at + size] = rng.bytes(size)
            case 6 if rng.random() < 0.3:
                del data[at:]
            case 7:
                other = int(rng.integers(len(data) + 1))
                data[at : at + size] = data[other : other + size]
    return bytes(data)


def change_json(content: bytes, rng: Rng) -> bytes:
    """Another value somewhere in a JSON document; sometimes bytes, too."""
    document = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(document))
        holder, key = places[rng.integers(len(places))]
        other, place = places[rng.integers(len(places))]
        choice = rng.integers(len(_VALUES) + 3)
        if choice < len(_VALUES):
            holder[key] = _VALUES[choice]
        elif choice == len(_VALUES):
            holder[key] = json.loads(json.dumps(other[place]))
        elif isinstance(holder, dict):
            del holder[key]
        document = json.loads(json.dumps(document))
        if not isinstance(document, dict | list) or not document:
            break
    text = json.dumps(document).encode()
    return flip(text, rng) if rng.random() < 0.2 else text


def _places(document: Any) -> Any:
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)


def sounds(folder: Path) -> dict[str, Reader]:
    """Recordings, by their form."""
    tone = 0.3 * np.sin(np.arange(8000) / 5)
    readers = {}
    for form, subtypes in {
        "wav": ["PCM_16", "FLOAT", "ULAW", "MS_ADPCM"],
        "flac": ["PCM_16"],
        "ogg": ["VORBIS", "OPUS"],
        "mp3": ["MPEG_LAYER_III"],
    }.items():
        good = []
        for subtype in subtypes:
            path = folder / f"good.{form}"
            soundfile.write(path, tone, 16000, subtype)
            good.append((path.name, path.read_bytes()))
        readers[form] = Reader(_hear, good)
    for form in ("m4a", "aac"):
        _write_aac(folder / f"good.{form}", tone)
        readers[form] = Reader(_hear, [(f"good.{form}", (folder / f"good.{form}").read_bytes())])
    return readers


def _hear(path: Path) -> None:
    audio.probe(path)
    audio.read(path)
    audio.read(path, start=0.1, seconds=0.2)


def _write_aac(path: Path, samples: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], "fltp", "mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def lists(folder: Path) -> dict[str, Reader]:
    """Lists of recordings, of trials, and archives of embeddings."""
    corpus = folder / "corpus"
    for key in ("ann/1.wav", "ann/2.wav", "bob/1.wav"):
        (corpus / key).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(corpus / key, 0.1 * np.ones(4000), 16000)
    keys = Corpus.read(corpus)
    scp = "".join(f"{key} {path}\n" for key, path in keys.paths.items()).encode()
    of = "".join(f"{key} {speaker}\n" for key, speaker in keys.speakers.items()).encode()
    rows = [{"key": k, "spk": s, "wav": str(keys.paths[k])} for k, s in keys.speakers.items()]
    trials = b"1 ann/1.wav ann/2.wav\n0 ann/1.wav bob/1.wav\n0 ann/2.wav bob/1.wav\n"
    cut = "".join(f"{n} {key} 0.0 0.2\n" for n, key in enumerate(keys.paths)).encode()
    whose = "".join(f"{n} ann\n" for n, _ in enumerate(keys.paths)).encode()
    quoted = b'"ann/1.wav" "ann/2.wav" target\n"ann/1.wav" "bob/1.wav" nontarget\n'
    both, network = b"ann/1.wav ann/2.wav\n", "0" * 64
    reference = enrolment_file.Reference(np.array([0.6, 0.8, 0.0], np.float32), 2.5)
    enrolled = enrolment_file.dumps({"ann": [reference] * 2}, network, 3).encode()
    vectors = {key: np.arange(3, dtype=np.float32) for key in keys.paths}
    good: dict[str, bytes] = {}
    for name, more in {"b.ark": {}, "t.ark": {"text": True}}.items():
        kaldiio.save_ark(str(folder / name), vectors, scp=str(folder / "x.scp"), **more)
        good[name] = (folder / name).read_bytes()
    good["x.scp"] = (folder / "x.scp").read_bytes()
    np.save(folder / "x.npy", np.ones((3, 4), np.float32))
    good["x.npy"] = (folder / "x.npy").read_bytes()
    files = "".join(f"{path}\n" for path in keys.paths.values()).encode()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for key in keys.paths:
            for name, content in {"spk": b"ann", "wav": (corpus / key).read_bytes()}.items():
                entry = tarfile.TarInfo(f"{key}.{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        for name in ("spk", "wav"):
            entry = tarfile.TarInfo(f"link.{name}")
            entry.type, entry.linkname = tarfile.LNKTYPE, f"{key}.{name}"
            archive.addfile(entry)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    return {
        "wav.scp": Reader(lambda path: _corpus(path, {"utt2spk": of}), [("wav.scp", scp)]),
        "utt2spk": Reader(lambda path: _corpus(path, {"wav.scp": scp}), [("utt2spk", of)]),
        "spk2utt": Reader(
            lambda path: _corpus(path, {"wav.scp": scp}),
            [("spk2utt", b"ann " + both + b"bob bob/1.wav\n")],
        ),
        "list of files": Reader(
            lambda path: Corpus.read(path, unlabelled=True), [("some.list", files)]
        ),
        "segments": Reader(
            lambda path: _corpus(path, {"wav.scp": scp, "utt2spk": whose}), [("segments", cut)]
        ),
        "raw.list": Reader(Corpus.read, [("raw.list", lines)]),
        "shard (tar)": Reader(_shard, [("x.tar", tar.getvalue())]),
        "trials": Reader(
            lambda path: Trials.read(path, keys, strict=path.stat().st_size % 2 == 0).check(),
            [("trials.txt", trials), ("trials.csv", _headed(trials)), ("quoted.txt", quoted)],
        ),
        "enroll map": Reader(lambda path: _enrolled(path, keys), [("map.txt", b"a " + both)]),
        "enrolled speakers": Reader(
            lambda path: enrolment_file.read(path, network, 3), [("s.json", enrolled)], change_json
        ),
        "embeddings .ark": Reader(Embeddings.read, [(x, good[x]) for x in ("b.ark", "t.ark")]),
        "embeddings .scp": Reader(Embeddings.read, [("x.scp", good["x.scp"])]),
        "embeddings .npy": Reader(_matrix, [("x.npy", good["x.npy"])]),
    }


def _headed(trials: bytes) -> bytes:
    return b"label,enroll,test\n" + trials.replace(b" ", b",")


def _matrix(path: Path) -> None:
    path.with_suffix(".txt").write_text("a\nb\nc\n")
    Embeddings.read(path)


def _enrolled(path: Path, corpus: Corpus) -> None:
    (path.parent / "trials.txt").write_text("1 a ann/1.wav\n0 a bob/1.wav\n")
    Trials.read(path.parent / "trials.txt", corpus, enroll_map=path).check()


def _corpus(path: Path, others: dict[str, bytes]) -> Corpus:
    for name, content in others.items():
        (path.parent / name).write_bytes(content)
    return Corpus.read(path.parent)


def _shard(path: Path) -> None:
    (path.parent / "shard.list").write_text(path.name)
    for member in Corpus.read(path.parent / "shard.list").paths.values():
        try:
            audio.probe(member)
        except audio.BadAudioError:
            continue
