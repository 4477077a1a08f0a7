"""Synthetic speech for speaker verification, when there is no corpus at hand.

Each speaker is a voice file for espeak-ng (`tfq_sv.data.voices`); each utterance is random words in
a channel of its own. The folders are VoxCeleb's:

    OUT/corpus.json                       what this is
    OUT/train/wav/id00001/s1/00001.wav    speaker / session / utterance
    OUT/train/wav.scp                     `id00001/s1/00001.wav wav/id00001/s1/00001.wav`
    OUT/train/utt2spk                     `id00001/s1/00001.wav id00001`
    OUT/test/wav/id10001/...              voices that train/ does not have
    OUT/test/trials.txt                   `1 id10001/s1/00001.wav id10001/s2/00001.wav`

No TensorFlow.
"""

import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf

from tfq_sv.data import voices
from tfq_sv.data.workers import done_by
from tfq_sv.errors import InputError
from tfq_sv.files import atomic, sync
from tfq_sv.progress import tqdm

RATE = 16000
"""Samples per second of the files."""

SESSION = 4
"""Utterances a session: a day on which the speaker's pitch and speed are a little different."""

MOST_SPEAKERS = 10000
"""A part's speakers at most; the test part's ids start above."""

# Speed (words per minute), pitch and pitch range (of 100): as the voice's file has them, and how
# much days, and utterances of a day, spread around that.
_OWN = np.array([170.0, 50.0, 50.0])
_DAY_SPREAD = (9.0, 3.5, 5.0)
_UTTERANCE_SPREAD = (6.0, 2.0, 5.0)

# What a stream of random numbers is for.
_VOICE, _DAY, _UTTERANCE, _TRIALS = 1, 2, 3, 4

# Reflections wrap around a circular convolution: so many seconds are made and thrown away.
_LEAD = 0.1

# Greatest common rate of espeak-ng's 22,050 and the files' 16,000 samples per second.
_BLOCKS = 50

_WORDS = """
about above action after again air almost always animal answer apple autumn azure bath beauty
beige before begin behind believe better between bird birthday body both bottle boy bread bridge
bright brother building business butter camera castle catch cause chair change cheese child
choice church city cloud coffee cold colour common copper country courage cousin cow curious
dance danger daughter decision deep different dinner doctor dollar double dragon dream early
earth easy edge eight either engine enjoy enough evening every example eye factory family farmer
father feather fifty finger fire fish flower foggy follow forest forty fresh friend garage
garden gentle giant glass golden good great green guess guitar happy harbour health heart heavy
hello honey hour house huge hundred idea island jacket join journey juice jungle kitchen knife
language large laugh leather leisure letter little lively lizard loud lucky lunch machine magic
marble market measure memory middle milk million mirror money month morning mother mountain
mouth music narrow nature needle nephew never night noise north nothing number ocean often oil
onion open orange other over oyster paper peace pencil people picture pleasure pocket point
poison police power pretty quarter queen question quick quiet rabbit radio rain reason remember
rhythm river road royal sailor salad school sea season seven shadow sharp sheep shoulder silver
simple sing sister six sleep smooth snow social soft south spoon spring square station stone
story strange stream summer sunday sure table teacher television theatre thirty thought thousand
three thumb thunder ticket tiger today together tomorrow tooth toy travel treasure tree trouble
twelve under union usual valley vanilla very village vision visit voice voyage wagon water
weather wednesday weekend whisper wide winter wisdom wolf woman wonder world yellow yesterday
young youth zebra zero
""".split()


@dataclass(frozen=True)
class CorpusSpec:
    """What to make: speakers of both parts, utterances per speaker, length in seconds, seed.

    A voice depends on the seed and its own number alone, so a larger corpus holds a smaller one
    of the same seed.

    Raises:
        InputError: a value that no corpus can have.

    >>> CorpusSpec(speakers=2).test_speakers
    120
    """

    speakers: int = 240
    test_speakers: int = 120
    utterances: int = 8
    test_utterances: int = 10
    seconds: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, least, most in (
            ("speakers", 1, MOST_SPEAKERS),
            ("test_speakers", 1, MOST_SPEAKERS),
            ("utterances", 1, 99999),
            ("test_utterances", 2, 99999),  # A target trial takes two.
            ("seconds", 0.1, 3600),
            ("seed", 0, 2**63),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"{name} must be from {least:,} to {most:,}, not {value}")


def make_corpus(
    out: str | os.PathLike[str],
    spec: CorpusSpec | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
    train: bool = True,
) -> None:
    """Makes the corpus, or what is still missing of it after an interruption.

    The same spec gives the same files bit for bit, whatever the workers and the interruptions.
    Scripts that call this with more than one worker need `if __name__ == "__main__":`, because
    workers import them.

    Args:
        out: the folder, new or of an earlier run with the same spec.
        spec: what to make; CorpusSpec() if not given.
        workers: processes; all cores if not given. With 1, everything happens in this process.
        progress: show a progress bar.
        train: also make the training part; without, the test part is the same.

    Raises:
        InputError: espeak-ng is missing; `out` holds something else.

    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp())
    >>> small = CorpusSpec(speakers=2, test_speakers=2, utterances=1, test_utterances=2)
    >>> make_corpus(out, small, workers=1, progress=False)
    >>> (out / "train" / "utt2spk").read_text().splitlines()
    ['id00001/s1/00001.wav id00001', 'id00002/s1/00001.wav id00002']
    """
    spec = spec or CorpusSpec()
    workers = workers or os.cpu_count() or 1
    if workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")
    root = Path(out)
    _claim_folder(root, spec)
    parts = [_Part(root / "test", 1, MOST_SPEAKERS + 1, spec.test_speakers, spec.test_utterances)]
    if train:
        parts.insert(0, _Part(root / "train", 0, 1, spec.speakers, spec.utterances))
    jobs = [(part, index) for part in parts for index in part.unfinished()]
    total = sum(part.speakers for part in parts)
    with tqdm(
        total=total, initial=total - len(jobs), unit="speaker", disable=not progress
    ) as progress_bar:
        for _ in done_by(workers, partial(_make_speaker, spec), jobs):
            progress_bar.update()
    for part in parts:
        for rest in (part.folder / "wav").glob(".*.part*"):  # of killed runs
            shutil.rmtree(rest, ignore_errors=True)
        part.write_lists()
    with atomic(root / "test" / "trials.txt") as path:
        path.write_text("".join(_trials(parts[-1], spec.seed)))


@dataclass(frozen=True)
class _Part:
    """The training or the test part: its folder, its stream of random numbers, its speakers."""

    folder: Path
    stream: int
    first_id: int
    speakers: int
    utterances: int

    def speaker(self, index: int) -> str:
        return f"id{self.first_id + index:05d}"

    def key(self, index: int, utterance: int) -> str:
        session, number = divmod(utterance, SESSION)
        return f"{self.speaker(index)}/s{session + 1}/{number + 1:05d}.wav"

    def keys(self) -> Iterator[str]:
        for index in range(self.speakers):
            yield from (self.key(index, utterance) for utterance in range(self.utterances))

    def unfinished(self) -> list[int]:
        """A speaker's folder gets its name when it is whole, so names tell what is done."""
        return [
            k for k in range(self.speakers) if not (self.folder / "wav" / self.speaker(k)).exists()
        ]

    def write_lists(self) -> None:
        with atomic(self.folder / "wav.scp") as path:
            path.write_text("".join(f"{key} wav/{key}\n" for key in self.keys()))
        with atomic(self.folder / "utt2spk") as path:
            path.write_text("".join(f"{key} {key.split('/')[0]}\n" for key in self.keys()))


def is_female(index: int) -> bool:
    """Returns the sex of a part's speaker `index` (from 0): every other one is a woman."""
    return index % 2 == 1


def _claim_folder(root: Path, spec: CorpusSpec) -> None:
    """Marks the folder as this corpus, or raises InputError if it holds another."""
    settings = asdict(spec) | {"engine": f"espeak-ng {voices.engine_version()}"}
    label = root / "corpus.json"
    if label.exists():
        try:
            found = dict(json.loads(label.read_text())["settings"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f"{label} is not a corpus's; delete it or choose another folder"
            ) from None
        differing = [name for name in settings if found.get(name) != settings[name]]
        if differing:
            name = differing[0]
            raise InputError(
                f"{root} holds a corpus with {name} {found.get(name)}, not {settings[name]}; "
                "choose another folder, or delete that one"
            )
        return
    if any((root / part).exists() for part in ("train", "test")):
        raise InputError(f"{root} holds files, but no synthetic corpus; choose another folder")
    description = {
        "what": "Synthetic speech: espeak-ng voices reading random words. Not VoxCeleb.",
        "command": " ".join(
            ["tfq-sv make-corpus"]
            + [f"--{name}={value}" for name, value in asdict(spec).items() if name != "seconds"]
        ),
        "settings": settings,
    }
    with atomic(label) as path:
        path.write_text(json.dumps(description, indent=2) + "\n")


def _make_speaker(spec: CorpusSpec, job: tuple[_Part, int]) -> None:
    """Makes a speaker's folder: whole, or not at all."""
    part, index = job
    target = part.folder / "wav" / part.speaker(index)
    # One of its own, as a worker whose parent was killed may still be making the same speaker.
    making = target.with_name(f".{target.name}.part-{secrets.token_hex(4)}")

    def rng(*what: int) -> np.random.Generator:
        return np.random.default_rng([spec.seed, part.stream, index, *what])

    try:
        voice = voices.draw_voice(rng(_VOICE), female=is_female(index))
        with closing(voices.Engine(voice)) as engine:
            for utterance in range(part.utterances):
                day = rng(_DAY, utterance // SESSION).normal(0, _DAY_SPREAD)
                now = rng(_UTTERANCE, utterance)
                speech = _speak(engine, spec.seconds + _LEAD, day, now)
                audio = _record(speech, spec.seconds, now)
                path = making / part.key(index, utterance).partition("/")[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, audio)
        for path in [*making.rglob("*"), making]:
            sync(path)
        making.rename(target)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        if target.exists():  # another process has made the same
            return
        if error.filename is None:  # the disk is full, for instance
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise


def _write(path: Path, audio: npt.NDArray[np.float32]) -> None:
    # By way of memory: libsndfile calls a full disk a "System error".
    content = io.BytesIO()
    sf.write(content, audio, RATE, format="WAV", subtype="PCM_16")
    path.write_bytes(content.getbuffer())


def _speak(
    engine: voices.Engine, seconds: float, day: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Returns random words, at least so many seconds of them, at the engine's rate."""
    speed, pitch, pitch_range = (
        int(value) for value in np.rint(_OWN + day + rng.normal(0, _UTTERANCE_SPREAD))
    )
    phrases: list[npt.NDArray[np.int16]] = []
    while sum(map(len, phrases)) < np.ceil(seconds * _BLOCKS) * voices.RATE // _BLOCKS:
        text = " ".join(rng.choice(_WORDS, size=rng.integers(4, 9)))
        seed = int(rng.integers(1, 2**31))
        phrases.append(
            engine.say(text, seed=seed, speed=speed, pitch=pitch, pitch_range=pitch_range)
        )
    return np.concatenate(phrases)


def _record(
    speech: npt.NDArray[np.int16], seconds: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Plays speech into a random room and microphone; returns it at RATE, float32, peak below 1.

    All in the frequency domain, where changing the rate is no more than cutting the spectrum.
    """
    blocks = int(np.ceil((seconds + _LEAD) * _BLOCKS))
    size = blocks * RATE // _BLOCKS
    spectrum = np.fft.rfft(speech[: blocks * voices.RATE // _BLOCKS])[: size // 2 + 1]
    frequency = np.fft.rfftfreq(size, 1 / RATE)

    # Microphone: a smooth curve of 2.5 dB over the mel scale.
    mel = np.log1p(frequency / 700) / np.log1p(RATE / 2 / 700)
    curve = rng.normal(0, 2.5 / np.sqrt(2), 4) @ np.cos(np.pi * np.outer(np.arange(1, 5), mel))
    # Room: early reflections in the 50 ms after the direct sound.
    room = np.zeros(size)
    delays = rng.integers(RATE // 500, RATE // 20, 12)
    strength = rng.uniform(0.1, 0.4) * np.exp(-delays / (RATE / 50))
    room[delays] = strength * rng.choice([-1, 1], delays.size)
    room[0] = 1
    heard = np.fft.irfft(spectrum * 10 ** (curve / 20) * np.fft.rfft(room), size)
    heard /= np.sqrt(np.mean(heard**2))

    slope = rng.uniform(0, 1)
    hiss = np.fft.rfft(rng.normal(size=size)) * (frequency + 100) ** -slope
    noise = np.fft.irfft(hiss, size)
    noise *= 10 ** (-rng.uniform(10, 25) / 20) / np.sqrt(np.mean(noise**2))

    audio = (heard + noise)[-round(seconds * RATE) :]
    level = 10 ** (rng.normal(-26, 2) / 20)
    return (audio * min(level, 0.99 / np.max(np.abs(audio)))).astype(np.float32)


def _trials(part: _Part, seed: int) -> list[str]:
    """Returns lines `label enroll test`, shuffled.

    All target pairs, and as many nontarget pairs each of one sex and of both, where there are so
    many.
    """
    rng = np.random.default_rng([seed, part.stream, 0, _TRIALS])
    utterances = part.utterances
    speakers = range(part.speakers)
    lines = [
        f"1 {part.key(speaker, i)} {part.key(speaker, j)}\n"
        for speaker in speakers
        for i, j in combinations(range(utterances), 2)
    ]
    targets = len(lines)
    for same in (True, False):
        pairs = [
            (a, b) for a, b in combinations(speakers, 2) if same == (is_female(a) == is_female(b))
        ]
        count = len(pairs) * utterances**2
        drawn = rng.choice(count, min(targets, count), replace=False) if count else ()
        for number in drawn:
            pair, i, j = np.unravel_index(number, (len(pairs), utterances, utterances))
            first, second = pairs[pair]
            lines.append(f"0 {part.key(first, int(i))} {part.key(second, int(j))}\n")
    return [lines[i] for i in rng.permutation(len(lines))]
