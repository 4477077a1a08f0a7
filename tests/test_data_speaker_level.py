"""Which folders are speakers: corpora as they are unpacked, people's own folders, and refusals."""

import re

import pytest

from tfq_sv.data.speaker_level import UnknownSpeakersError, find_level, level_at


def speakers(*files: str) -> list[str]:
    level = find_level("c", files)
    kept = [f for f in files if not any(f.startswith(f"{out}/") for out in level.excluded)]
    return sorted({level.speaker(file)[1].split("/")[0] for file in kept})


LAYOUTS = {
    "own": (["ann/a.wav", "ann/talk/b.flac", "bob/c.wav"], ["ann", "bob"]),
    "LibriSpeech": (
        ["train-clean-100/103/1240/103-1240-0000.flac", "train-clean-100/19/198/19-198-0001.flac",
         "dev-clean/84/121123/84-121123-0000.flac"], ["103", "19", "84"]),
    "LibriSpeech a folder above": (
        ["LibriSpeech/dev-clean/84/121123/84-121123-0000.flac",
         "LibriSpeech/test-other/61/70968/61-70968-0000.flac"], ["61", "84"]),
    "LibriSpeech one part": (
        ["103/1240/103-1240-0000.flac", "19/198/19-198-0001.flac"], ["103", "19"]),
    "LibriSpeech under another name": (
        ["books/103/1240/103-1240-0000.flac", "more/19/198/19-198-0001.flac"], ["103", "19"]),
    "VoxCeleb": (
        ["dev/aac/id00012/21Uxsk56VDQ/00001.m4a", "dev/aac/id00015/0fijmz4vTVU/00001.m4a",
         "test/aac/id00017/01dfn2spqyE/00001.m4a"], ["id00012", "id00015", "id00017"]),
    "VoxCeleb1 unpacked": (
        ["wav/id10001/1zcIwhmdeo4/00001.wav", "wav/id10002/x/00001.wav"], ["id10001", "id10002"]),
    "both VoxCelebs": (
        ["VoxCeleb1/dev/wav/id10001/v/1.wav", "voxceleb2/dev/aac/id00012/v/1.m4a"],
        ["id00012", "id10001"]),
    "CN-Celeb": (
        ["CN-Celeb_flac/data/id00000/singing-01-001.flac",
         "CN-Celeb_flac/data/id00001/drama-01-001.flac"], ["id00000", "id00001"]),
    "VCTK": (
        ["VCTK-Corpus-0.92/wav48_silence_trimmed/p225/p225_001_mic1.flac",
         "VCTK-Corpus-0.92/wav48_silence_trimmed/s5/s5_001_mic1.flac"], ["p225", "s5"]),
    "speechocean762": (
        ["WAVE/SPEAKER0001/000010011.WAV", "WAVE/SPEAKER0003/000030012.WAV"],
        ["SPEAKER0001", "SPEAKER0003"]),
    "AISHELL": (
        ["data_aishell/wav/train/S0002/BAC009S0002W0122.wav",
         "data_aishell/wav/dev/S0724/BAC009S0724W0121.wav"], ["S0002", "S0724"]),
    "TIMIT": (
        ["TRAIN/DR1/FCJF0/SA1.WAV", "TRAIN/DR2/MDPK0/SA1.WAV"], ["FCJF0", "MDPK0"]),
    "dev and test": (["dev/ann/1.wav", "test/bob/1.wav"], ["ann", "bob"]),
    "train and val": (["train/ann/1.wav", "val/ann/2.wav", "val/bob/1.wav"], ["ann", "bob"]),
    "gallery and probe": (
        ["gallery/ann/1.wav", "probe/ann/2.wav", "probe/bob/1.wav"], ["ann", "bob"]),
    "enrolment and verification": (
        ["enroll/ann/1.wav", "verification/ann/2.wav", "verification/bob/1.wav"], ["ann", "bob"]),
    "kinds of people": (["female/ann/1.wav", "male/bob/1.wav"], ["ann", "bob"]),
    "languages": (["english/ann/1.wav", "mandarin/bob/1.wav"], ["ann", "bob"]),
    "sessions above": (["session1/ann/1.wav", "session2/ann/1.wav"], ["ann"]),
    "sessions below": (
        ["ann/monday/1.wav", "ann/tuesday/2.wav", "bob/monday/1.wav"], ["ann", "bob"],
    ),
    "VoxForge": (["ann-2008/wav/1.wav", "bob-2009/wav/1.wav"], ["ann-2008", "bob-2009"]),
    "speakers by name": (["first/spk1/1.wav", "second/spk2/1.wav"], ["spk1", "spk2"]),
    "people called like parts": (["dev/1.wav", "val/1.wav", "ann/1.wav"], ["ann", "dev", "val"]),
    "noise beside": (
        ["ann/1.wav", "bob/1.wav", "noise/1.wav", "_background_noise_/2.wav",
         "RIRS_NOISES/r/1.wav"],
        ["ann", "bob"]),
    "tools' folders beside": (
        ["ann/1.wav", "bob/1.wav", "logs/x/1.wav", "checkpoints/1.wav", "backup/ann/1.wav"],
        ["ann", "bob"]),
    "numbered sessions": (
        [f"{i:02}/{j:02}/1.wav" for i in range(1, 5) for j in (1, 2)], ["01", "02", "03", "04"]),
    "a folder in one of its name": (["ann/ann/1.wav", "bob/1.wav", "cleo/1.wav"],
                                    ["ann", "bob", "cleo"]),
    "many with folders": (
        [f"{name}/{name}{i}/1.wav" for i in range(2) for name in "abcdefghijk"],
        list("abcdefghijk")),
    "days above": (
        [f"2023-01-0{day}/{who}/1.wav" for day in (5, 6) for who in ("ann", "bob", "cid")],
        ["ann", "bob", "cid"]),
    "days below": (
        [f"{who}/202301{day}/1.wav" for day in (15, 16) for who in ("ann", "bob")], ["ann", "bob"]),
    "places above": (
        [f"{place}/{who}/1.wav" for place in ("car", "office") for who in ("ann", "bob", "cid")],
        ["ann", "bob", "cid"]),
    "places below": (
        [f"{who}/{place}/1.wav" for place in ("car", "office") for who in ("ann", "bob")],
        ["ann", "bob"]),
    "moods above": (
        [f"{mood}/{who}/1.wav" for mood in ("angry", "neutral") for who in ("ann", "bob")],
        ["ann", "bob"]),
    "devices above": (
        [f"{kind}/{who}/1.wav" for kind in ("iphone12", "android") for who in ("ann", "bob")],
        ["ann", "bob"]),
    "two words above": (
        [f"{kind}/{who}/1.wav" for kind in ("Female_speakers", "Male_speakers")
         for who in (f"{kind[0]}a", f"{kind[0]}b")],
        ["Fa", "Fb", "Ma", "Mb"]),
    "signal to noise above": (
        [f"snr_{level}dB/{who}/1.wav" for level in (-5, 0, 5) for who in ("ann", "bob")],
        ["ann", "bob"]),
    "processing above": (
        [f"{kind}/{who}/1.wav" for kind in ("denoised", "original") for who in ("ann", "bob")],
        ["ann", "bob"]),
    "spoken by whom": (
        [f"{kind}/{who}/1.wav" for kind in ("genuine", "impostor") for who in ("ann", "bob")],
        ["ann", "bob"]),
    "Chinese parts": (
        [f"{part}/{who}/1.wav" for part in ("训练集", "测试集") for who in ("ann", "bob")],
        ["ann", "bob"]),
    "nobody's recordings beside": (
        ["ann/1.wav", "bob/1.wav", "unknown/1.wav", "Unlabeled/2.wav", "misc/3.wav"],
        ["ann", "bob"]),
    "years and months below": (
        [f"{who}/2020/{m:02}/1.wav" for who in ("ann", "bob") for m in (1, 2)], ["ann", "bob"]),
    "folders without a name beside": (
        [f"{folder}/1.wav" for folder in ("ann", "bob", "New folder (2)", "all", "old", "to do")],
        ["ann", "bob"]),
    "names that begin alike": (["old/1.wav", "noah/1.wav", "Newton/1.wav"], ["Newton", "noah"]),
    "one file per speaker, one session each": (
        ["id10001/v/1.wav", "id10002/w/1.wav"], ["id10001", "id10002"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str) -> None:
    files, expected = LAYOUTS[name]
    assert speakers(*files) == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.wav", "ann/1.wav"], "c/a.wav lies in no speaker's folder"),
        (["train/1.wav", "test/2.wav"], "c/test/2.wav|c/train/1.wav"),
        (["enroll/id1-enroll.wav", "test/id1-a.wav"], "lies in no speaker's folder"),
        (["train/ann/1.wav", "test/bob/1.wav"], "holds two corpora; give c/train or c/test"),
        (["x/train/ann/1.wav", "x/eval/bob/1.wav"], "give c/x/train or c/x/eval"),
        (["alpha/ann/1.wav", "beta/bob/1.wav"], "--speaker_level=1 or 2"),
        (["alpha/ann/1.wav", "alpha/bob/1.wav"], "--speaker_level=1 or 2"),
        (["train/ann/1.wav", "cleo/1.wav"], "holds train, which a corpus's parts are called"),
        (["ann/1.wav", "bob/1.wav", "old/ann/1.wav"], "c/old holds folders that are called like"),
        (
            ["id1/v/1.wav", "id2/w/1.wav", "copy/id1/v/1.wav"],
            "c/copy holds folders that are called",
        ),
        (["noise/1.wav", "music/2.wav"], "holds no speaker's folder"),
        (
            [f"{place}/{who}/1.wav" for place in ("zurich", "bern") for who in ("ann", "bob")],
            "which folders are speakers, its 2 (zurich, bern) or the 2 in them (ann, bob)?",
        ),
        (
            [f"place{i}/name {who}/1.wav" for i in "abcdefghijk" for who in "abcdefghij"],
            "which folders are speakers, its 11 (placea, placeb, placec, ...) or the 10 in them",
        ),
        (
            ["ann/1.wav", "bob/1.wav", "test/1.wav"],
            "c holds test, which a corpus's parts are called",
        ),
        (["dev/zurich/ann/1.wav", "dev/bern/bob/1.wav"], "c/dev: which folders are speakers"),
        (["data/lisa/TIMIT/DR1/FCJF0/1.wav"], "c/data: which folders are speakers, its 1 (lisa)"),
        (["train/003/106/106_003_1.wav", "train/003/107/107_003_1.wav"], "its 1 (003) or the 2"),
        (
            [f"{what}/P{i:04}/1.wav" for what in ("podcast", "lecture") for i in range(3)],
            "its 2 (podcast, lecture) or the 3 in them (P0000, P0001, P0002)",
        ),
        (
            [f"audio/{what}/p{i}/1.wav" for what in ("studioa", "studiob") for i in (225, 226)],
            "c/audio: which folders are speakers, its 2 (studioa, studiob) or the 2 in them",
        ),
        (["angry/1.wav", "happy/2.wav"], "c/angry/1.wav lies in no speaker's folder"),
        (["ann/1.wav", "bob/1.wav", "ann - Copy/1.wav"], "c/ann - Copy is called like a copy of"),
        (["ann/1.wav", "bob/1.wav", "copy of ann/1.wav"], "c/copy of ann is called like a copy"),
        *[
            (["ann/1.wav", "bob/1.wav", f"{name}/1.wav"], f"c/{name} is called like a copy of ann")
            for name in ("ann - Kopie", "ann - 副本", "ann.bak", "ann_old", "ann_backup", "old ann")
        ],
        (["ann/1.wav", "bob/1.wav", "ann (2)/1.wav"], "--speaker_level=1 takes it for a speaker"),
    ],
)
def test_what_nobody_can_know_is_refused(files: list[str], message: str) -> None:
    with pytest.raises(
        UnknownSpeakersError, match=re.escape(message) if "|" not in message else message
    ):
        find_level("c", files)


def test_the_reading_is_said_where_it_is_not_the_plain_one() -> None:
    assert find_level("c", ["ann/1.wav", "bob/1.wav"]).note == ""
    assert find_level("c", ["wav/ann/1.wav", "wav/bob/v/1.wav"]).note == ""
    note = find_level("c", ["dev-clean/84/1/84-1-0.flac", "dev-other/85/1/85-1-0.flac"]).note
    assert (
        note
        == "speakers: the folders in dev-clean, dev-other; --speaker_level=N chooses another level"
    )


def test_a_level_that_is_chosen() -> None:
    files = ["alpha/ann/x/1.wav", "beta/bob/y/1.wav"]
    assert [level_at("c", files, n).speaker(files[0])[1] for n in (1, 2, 3)] == [
        "alpha/ann/x/1.wav", "ann/x/1.wav", "x/1.wav",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="does not lie in 4 folders"):
        level_at("c", files, 4)
