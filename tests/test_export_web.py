"""export/web in a headless Chromium: what the page says beside what SpeakerEncoder says.

tests/chromium.py says where the browser and the page's packages come from.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tf_keras as keras
from conftest import RATE, tiny_resnet, tone, write
from matplotlib.figure import Figure
from playwright.sync_api import Browser, Page, expect
from web_pages import EXPORT, GOLDEN, browser, folder, packages, page, ready

import tfq_sv
from tfq_sv import reports
from tfq_sv.data import audio
from tfq_sv.data.corpus import Corpus
from tfq_sv.evaluation.score_calibration import Calibration
from tfq_sv.evaluation.scoring import cosine
from tfq_sv.export import SpeakerEncoder, export_tflite, fast_file, write_about

EMBED = """async ([name, samples]) => {
  const { SpeakerEncoder } = await import("./encoder.js");
  const file = await (await fetch(name)).arrayBuffer();
  const encoder = await SpeakerEncoder.open(new Uint8Array(file), name);
  const embedding = await encoder.embed(Float32Array.from(samples));
  encoder.close();
  return [...embedding];
}"""
ENROLLED = """async ([name, text, recordings, wrong]) => {
  const { SpeakerEncoder } = await import("./encoder.js");
  const { SpeakerVerifier } = await import("./verifier.js");
  const file = await (await fetch(name)).arrayBuffer();
  const encoder = await SpeakerEncoder.open(new Uint8Array(file), name);
  const verifier = new SpeakerVerifier(encoder);
  verifier.load(text, "speakers.json");
  const found = [];
  for (const samples of recordings) {
    const speech = Float32Array.from(samples);
    found.push([await verifier.verify("ann", speech), await verifier.identify(speech)]);
  }
  const all = wrong.map((samples) => Float32Array.from(samples));
  const refusal = await verifier.enroll("eve", all).then(() => "", (error) => error.message);
  await verifier.enroll("eve", all, { check: false });
  const { names } = verifier;
  verifier.remove("ann");
  encoder.close();
  return { found, refusal, names, saved: verifier.save() };
}"""
PUBLIC = """async (samples) => {
  const { loadAndCompile, Tensor } = await import("@litertjs/core");
  const model = await loadAndCompile("model.tflite", { accelerator: "wasm" });
  const waveform = new Tensor(new Float32Array(samples), [1, samples]);
  return model.run("embed", { waveform }).then(() => "runs", (error) => error.message);
}"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quantized() -> keras.Model:
    network = tiny_resnet()
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=3)
    return tfq_sv.quantize(network, recipe, calibrate=False)


@pytest.fixture(scope="module")
def float32(quantized: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that computes in float32, without thresholds."""
    path = tmp_path_factory.mktemp("files") / "float32.tflite"
    return export_tflite(quantized, path, compute="float32").path


def test_score_and_decision(ready: Page, test_corpus: Corpus) -> None:
    encoder = SpeakerEncoder(GOLDEN)
    first, second, *_, last = test_corpus.paths.values()
    decisions = set()
    ready.set_input_files("#first", first)
    for other in (second, last):
        ready.set_input_files("#second", other)
        expect(ready.locator("#second-line")).to_have_text(re.compile(re.escape(other.name)))
        expect(ready.locator("#result")).to_be_visible()
        score = cosine(*(encoder.embed(audio.read(path).samples) for path in (first, other)))
        assert float(ready.inner_text("#score")) == pytest.approx(score, abs=2e-3)
        expect(ready.locator("#no-threshold")).to_be_hidden()
        assert ready.inner_text("#threshold") == f"{encoder.threshold:.4f}"
        decisions.add(ready.inner_text("#decision"))
    assert decisions == {"Same speaker", "Different speakers"}


def test_a_recording_is_scored(ready: Page, test_corpus: Corpus) -> None:
    """Opus, which browsers record in, and resampling change it: not by much."""
    ready.set_input_files("#first", next(iter(test_corpus.paths.values())))
    button = ready.get_by_role("button", name="Record Second clip")
    button.click()
    expect(ready.locator("#second-line")).to_contain_text("speak")
    ready.wait_for_timeout(1500)
    ready.get_by_role("button", name="Stop Second clip").click()
    expect(ready.locator("#result")).to_be_visible()
    assert float(ready.inner_text("#score")) > 0.8


def test_no_threshold_no_decision(ready: Page, float32: Path, test_corpus: Corpus) -> None:
    ready.set_input_files("#model", float32)
    first, second, *_ = test_corpus.paths.values()
    ready.set_input_files("#first", first)
    ready.set_input_files("#second", second)
    expect(ready.locator("#threshold")).to_have_text("unknown")
    expect(ready.locator("#decision")).to_have_text("No decision")
    expect(ready.locator("#no-threshold")).to_be_visible()


def test_embeddings_of_any_length(ready: Page, folder: Path, float32: Path) -> None:
    """To float32's last bits where nothing is rounded to int8."""
    rng = np.random.default_rng(0)
    for path, tolerance in ((GOLDEN, 1e-4), (float32, 1e-6)):
        (folder / path.name).symlink_to(path)
        encoder = SpeakerEncoder(path)
        for samples in (3200, 64000, 24043):
            noise = rng.normal(0, 0.1, samples).astype(np.float32)
            found = ready.evaluate(EMBED, [path.name, noise.tolist()])
            assert cosine(np.array(found), encoder.embed(noise)) > 1 - tolerance


def test_fast_files_run_as_they_are(
    ready: Page, folder: Path, quantized: keras.Model, float32: Path
) -> None:
    """LiteRT.js does not know the int8 that CompiledModel in Kotlin wants; the page says so."""
    (folder / "fast.tflite").write_bytes(fast_file(float32))
    noise = np.random.default_rng(0).normal(0, 0.1, 24043).astype(np.float32)
    wanted = SpeakerEncoder(float32, check_speech=False).embed(noise)
    found = ready.evaluate(EMBED, ["fast.tflite", noise.tolist()])
    assert cosine(np.array(found), wanted) > 1 - 1e-6
    export_tflite(quantized, folder / "fixed.tflite", compute="float32", fixed_lengths=True)
    ready.set_input_files("#model", folder / "fixed.tflite")
    message = "fixed.tflite returns int8, which LiteRT.js does not know"
    expect(ready.locator("#model-line.error")).to_contain_text(message)


@pytest.fixture
def calibrated(folder: Path) -> Path:
    """The golden file with a calibration, an example, not a measured one."""
    path = Path(shutil.copy(GOLDEN, folder / "calibrated.tflite"))
    write_about(
        path, calibration=Calibration(-9.0, 20.0, -2.0, 3.0, 0.5, 6.0, -1.0, 2.0, 3).about()
    )
    return path


def test_the_page_says_how_likely_one_speaker_is(ready: Page, calibrated: Path) -> None:
    ann, again = (GOLDEN.with_name(f"{name}.wav") for name in ("ann-1", "ann-2"))
    ready.set_input_files("#first", ann)
    ready.set_input_files("#second", again)
    expect(ready.locator("#decision")).to_have_text("Same speaker")
    expect(ready.locator("#llr-line")).to_be_hidden()
    ready.set_input_files("#model", calibrated)
    expect(ready.locator("#llr-line")).to_be_visible()
    verifier = tfq_sv.SpeakerVerifier(calibrated)
    verifier.enroll("ann", [ann])
    expected = verifier.verify("ann", again).llr
    assert float(ready.inner_text("#llr")) == pytest.approx(expected, abs=0.1)


def test_enrolled_speakers(ready: Page, calibrated: Path, tmp_path: Path) -> None:
    """Python's file decides alike here, and Python reads the one written here."""
    wavs = [GOLDEN.with_name(f"{name}.wav") for name in ("ann-1", "ann-2", "bob")]
    samples = [soundfile.read(path, dtype="float32")[0] for path in wavs]
    verifier = tfq_sv.SpeakerVerifier(calibrated)
    verifier.enroll("ann", samples[:1])
    verifier.enroll("bob", samples[2:])
    verifier.save(tmp_path / "speakers.json")
    lists = [one.tolist() for one in samples]
    text = (tmp_path / "speakers.json").read_text()
    answer = ready.evaluate(ENROLLED, [calibrated.name, text, lists[1:], lists])
    for speech, (verified, identified) in zip(samples[1:], answer["found"], strict=True):
        expected, best = verifier.verify("ann", speech), verifier.identify(speech)
        assert verified["accepted"] == expected.accepted
        assert verified["threshold"] == expected.threshold.value
        assert verified["score"] == pytest.approx(expected.score, abs=2e-3)
        assert verified["llr"] == pytest.approx(expected.llr, abs=0.1)
        assert identified["speaker"] == best.speaker
        assert identified["margin"] == pytest.approx(best.margin, abs=4e-3)
    assert answer["refusal"].startswith("eve: recording 3 does not fit the others: the score is ")
    assert answer["names"] == ["ann", "bob", "eve"]
    (tmp_path / "page.json").write_text(answer["saved"])
    verifier.load(tmp_path / "page.json")
    assert verifier.names == ["bob", "eve"]
    assert verifier.identify(samples[2]).speaker == "bob"


def test_long_clips_are_embedded_in_windows(
    ready: Page, folder: Path, float32: Path, tmp_path: Path
) -> None:
    borders = 'async (given) => (await import("./windows.js")).borders(given.length, given.rate)'
    for case in json.loads((Path(__file__).parent / "data" / "windows.json").read_text()):
        found = ready.evaluate(borders, case)
        assert [len(found), found[0], found[-1]] == [case["count"], case["first"], case["last"]]
    (folder / float32.name).symlink_to(float32)
    noise = np.random.default_rng(0).normal(0, 0.1, 70 * RATE).astype(np.float32)
    noise[: 40 * RATE] = 0.25  # left out
    found = ready.evaluate(EMBED, [float32.name, noise.tolist()])
    with pytest.warns(UserWarning, match="in 2 windows"):
        assert cosine(np.array(found), SpeakerEncoder(float32).embed(noise)) > 1 - 1e-6
    ready.set_input_files("#first", write(tmp_path / "long.wav", noise))
    expect(ready.locator("#first-line")).to_contain_text("70.00 s: embedded in 2 windows")


def test_why_the_page_goes_around_run(ready: Page) -> None:
    """When this fails with a newer LiteRT, encoder.js may call CompiledModel.run itself."""
    assert ready.evaluate(PUBLIC, 16000) == (
        "TensorBuffer ranked tensor type Float32[1, 16000] does not match expected ranked tensor "
        "type Float32[1, -1]"
    )


def test_other_files_are_refused(ready: Page, tmp_path: Path) -> None:
    names = ("damaged.tflite", "cut.tflite", "text.tflite", "features.tflite")
    damaged, cut, text, features = (tmp_path / name for name in names)
    golden = GOLDEN.read_bytes()
    size = len(golden)
    damaged.write_bytes(golden[:-1] + bytes([golden[-1] ^ 1]))
    cut.write_bytes(golden[:-1])
    text.write_text("no network")
    features.write_bytes(golden)
    write_about(features, input="features")
    for path, message in (
        (damaged, "damaged.tflite is damaged: its checksum does not match; get it again"),
        (cut, f"cut.tflite is damaged: it has {size - 1} bytes and should have {size}"),
        (text, "text.tflite is not a .tflite file"),
        (features, "features.tflite takes features; export it again with --input=waveform"),
    ):
        ready.set_input_files("#model", path)
        expect(ready.locator("#model-line.error")).to_contain_text(message)


def test_clips_that_cannot_be_used(ready: Page, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    silence = np.zeros(RATE)
    soundfile.write(tmp_path / "muted.wav", np.full(44100, 0.25), 44100)
    for path, message in (
        (tmp_path / "text.wav", "text.wav is no audio that this browser can read"),
        (write(tmp_path / "short.wav", tone(300, 0.19)), "short.wav is too short: 0.19 s"),
        (write(tmp_path / "silent.wav", silence), "silent.wav is silent: every sample is zero"),
        (tmp_path / "muted.wav", "muted.wav is silent: a constant of 0.2500, from a muted input"),
    ):
        ready.set_input_files("#first", path)
        expect(ready.locator("#first-line.error")).to_contain_text(message)


def test_stereo_of_another_rate(ready: Page, tmp_path: Path) -> None:
    """Is mixed down and resampled: the same tone to the network."""
    left, right = np.zeros(44100), 0.2 * np.sin(2 * np.pi * 300 * np.arange(44100) / 44100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], 1), 44100)
    ready.set_input_files("#first", tmp_path / "stereo.wav")
    ready.set_input_files("#second", write(tmp_path / "mono.wav", tone(300)))
    expect(ready.locator("#second-line")).to_contain_text("perhaps no speech: a tone or hum")
    expect(ready.locator("#result")).to_be_visible()
    assert float(ready.inner_text("#score")) > 0.95


def test_without_packages_it_says_what_to_do(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#model-line.error")).to_contain_text("run npm install")


def test_reports_fit_a_phone(browser: Browser, tmp_path: Path) -> None:
    """What is wider scrolls within itself, with type that can be read; the page does not."""
    Figure(figsize=(11, 4)).savefig(tmp_path / "a.png", dpi=130)
    row = [f"a column with a long name {i}" for i in range(9)]
    report = reports.Page("Wide", "Very wide.").table(reports.Table(row, [row]))
    report.picture(tmp_path / "a.png", "wide").write(tmp_path / "page.html")
    view = browser.new_page(viewport={"width": 390, "height": 800})
    view.goto((tmp_path / "page.html").as_uri())
    assert view.evaluate("document.documentElement.scrollWidth") <= 390
    assert view.evaluate("document.querySelector('img').clientWidth") >= 560
    view.close()
