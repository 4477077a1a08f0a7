"""The real voices that the figures are of: which recordings, which trials.

    git clone https://github.com/jimbozhang/speechocean762 download
    python benchmarks/real_voices.py --speechocean762=download --librispeech=train-clean-100

writes Kaldi folders: `speechocean762/train` (5 recordings of each of the 125 speakers of the
corpus's train half) and `speechocean762/test` (8 of each of the 125 of its test half); `held`
(every fifth speaker of the former, from `--first` on) and `train` (the others); and `librispeech`,
one recording of each of 251 speakers. `speechocean762/test/trials.txt` has all 3,500 pairs within a
speaker, and 24,000 between two, 16,000 of them of one gender and age group (up to 15 years, above).
The lists are in `real_voices.txt.gz`; recordings stay where they are.

speechocean762 is OpenSLR 101 (Zhang et al., Interspeech 2021), LibriSpeech OpenSLR 12 (Panayotov et
al., ICASSP 2015).
"""

import argparse
import gzip
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tfq_sv.errors import InputError
from tfq_sv.files import atomic

LISTS = Path(__file__).with_name("real_voices.txt.gz")
Recording = tuple[str, str, str, str]
"""Speaker, recording, gender and age."""


def main(options: argparse.Namespace) -> None:
    """Writes the folders."""
    parts: dict[str, list[list[str]]] = defaultdict(list)
    for line in gzip.decompress(LISTS.read_bytes()).decode().splitlines():
        part, *fields = line.split()
        parts[part].append(fields)
    made: dict[Path, dict[str, tuple[Path, Recording]]] = {}
    for part in ("train", "test"):
        found = made[options.out / "speechocean762" / part] = {}
        for speaker, name, gender, age in parts[part]:
            place = Path("WAVE") / f"SPEAKER{speaker[3:]}" / f"{name}.WAV"
            recording = (speaker, name, gender, age)
            found[f"{speaker}/{name}"] = options.speechocean762 / place, recording
    first = made[options.out / "speechocean762" / "train"]
    speakers = sorted({recording[0] for _, recording in first.values()})
    held = speakers[options.first :: 5]
    for name, chosen in (("train", set(speakers) - set(held)), ("held", set(held))):
        made[options.out / name] = {k: x for k, x in first.items() if x[1][0] in chosen}
    if options.librispeech:
        found = made[options.out / "librispeech"] = {}
        for (name,) in parts["librispeech"]:
            speaker, chapter, _ = name.split("-")
            place = options.librispeech / speaker / chapter / f"{name}.flac"
            found[name] = place, (speaker, name, "", "")
    for folder, recordings in made.items():
        write(folder, recordings)
    names = list(made[options.out / "speechocean762" / "test"])
    trials = [f"{label} {names[int(a)]} {names[int(b)]}\n" for label, a, b in parts["trial"]]
    with atomic(options.out / "speechocean762" / "test" / "trials.txt") as temporary:
        temporary.write_text("".join(trials))
    for folder, recordings in made.items():
        print(f"wrote {folder}: {len(recordings):,} recordings")


def write(folder: Path, recordings: dict[str, tuple[Path, Recording]]) -> None:
    """Writes a Kaldi folder of recordings that are there."""
    missing = [place for place, _ in recordings.values() if not place.is_file()]
    if missing:
        raise InputError(f"{len(missing):,} recordings do not exist (first: {missing[0]})")
    places = [(key, str(place.resolve())) for key, (place, _) in recordings.items()]
    tables: dict[str, Sequence[tuple[str, str]]] = {"wav.scp": places}
    tables["utt2spk"] = [(key, one[0]) for key, (_, one) in recordings.items()]
    if all(one[2] for _, one in recordings.values()):
        tables["spk2gender"] = sorted({(one[0], one[2]) for _, one in recordings.values()})
        tables["spk2age"] = sorted({(one[0], one[3]) for _, one in recordings.values()})
    for name, rows in tables.items():
        with atomic(folder / name) as temporary:
            temporary.write_text("".join(f"{key} {value}\n" for key, value in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--speechocean762", type=Path, required=True, help="the folder that has WAVE/ in it"
    )
    parser.add_argument("--librispeech", type=Path, help="train-clean-100, if it is needed")
    parser.add_argument("--first", type=int, default=4, help="speaker of `held`, from 0")
    parser.add_argument("--out", type=Path, default=Path(), help="where the folders go")
    main(parser.parse_args())
