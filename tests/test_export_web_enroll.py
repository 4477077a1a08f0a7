"""export/web's page of enrolled speakers in a headless Chromium, beside SpeakerVerifier."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Page, expect
from web_pages import EXPORT, GOLDEN, browser, folder, packages, page, ready

import tfq_sv

pytestmark = pytest.mark.slow


def test_the_page_of_enrolled_speakers(ready: Page, tmp_path: Path) -> None:
    ann, again, bob = (GOLDEN.with_name(f"{name}.wav") for name in ("ann-1", "ann-2", "bob"))
    ready.goto("/enroll.html")
    expect(ready.locator("#model-line")).to_contain_text("128-d")
    enroll = ready.get_by_role("button", name="Enroll", exact=True)
    expect(enroll).to_be_disabled()
    ready.set_input_files("#test", ann)
    expect(ready.locator("#test-line")).to_contain_text("nobody is enrolled yet")
    ready.fill("#name", "ann")
    ready.set_input_files("#files", [ann, again, bob])
    expect(ready.locator("#recordings li")).to_have_count(3)
    enroll.click()
    expect(ready.locator("#enroll-line.error")).to_contain_text("recording 3 does not fit")
    ready.get_by_role("button", name="Discard bob.wav").click()
    enroll.click()
    expect(ready.locator("#enroll-line")).to_have_text("Enrolled ann by 2 recordings.")
    expect(ready.locator("#speakers li")).to_have_count(1)
    verifier = tfq_sv.SpeakerVerifier(GOLDEN)
    verifier.enroll("ann", [ann, again])
    for path, said in ((ann, "ann"), (bob, "Nobody who is enrolled")):
        if path != ann:  # who is answered for as soon as somebody is enrolled
            ready.set_input_files("#test", path)
        expect(ready.locator("#test-line")).to_contain_text(path.name)
        expect(ready.locator("#decision")).to_have_text(said)
        score = float(re.findall(r"score (-?[0-9.]+);", ready.inner_text("#detail"))[0])
        assert score == pytest.approx(verifier.identify(path).score, abs=2e-3)
    with ready.expect_download() as download:
        ready.get_by_role("button", name="Save as a file").click()
    download.value.save_as(tmp_path / "speakers.json")
    other = tfq_sv.SpeakerVerifier(GOLDEN)
    other.load(tmp_path / "speakers.json")
    assert other.names == ["ann"]
    ready.get_by_role("button", name="Remove ann").click()
    expect(ready.locator("#speakers li")).to_have_count(0)
    other.enroll("bob", [bob])
    other.save(tmp_path / "both.json")
    ready.set_input_files("#load", tmp_path / "both.json")
    expect(ready.locator("#speakers li")).to_have_text(["ann Remove", "bob Remove"])
    expect(ready.locator("#decision")).to_have_text("bob")
    assert "then ann, " in ready.inner_text("#detail")
    (tmp_path / "bad.json").write_text("{}")
    ready.set_input_files("#load", tmp_path / "bad.json")
    expect(ready.locator("#speakers-line.error")).to_contain_text("bad.json")
    expect(ready.locator("#speakers li")).to_have_count(2)  # as they were
    (tmp_path / "bad.wav").write_text("no audio")
    ready.set_input_files("#files", [tmp_path / "bad.wav", ann])
    expect(ready.locator("#recordings li")).to_have_count(1)
    expect(ready.locator("#enroll-line.error")).to_contain_text("bad.wav")  # still


def test_another_network_takes_nobody_away_unasked(ready: Page, tmp_path: Path) -> None:
    other = tfq_sv.SpeakerVerifier(GOLDEN)
    for name in ("ann-1", "bob"):
        other.enroll(name, [GOLDEN.with_name(f"{name}.wav")])
    other.save(tmp_path / "both.json")
    ready.goto("/enroll.html")
    expect(ready.locator("#model-line")).to_contain_text("128-d")
    ready.set_input_files("#load", tmp_path / "both.json")
    speakers, line = ready.locator("#speakers li"), ready.locator("#model-line")
    expect(speakers).to_have_count(2)
    (tmp_path / "bad.tflite").write_text("no network")
    ready.set_input_files("#model", tmp_path / "bad.tflite")
    expect(ready.locator("#model-line.error")).to_contain_text("bad.tflite")
    ready.set_input_files("#model", GOLDEN)  # the same one
    expect(line).to_contain_text("golden.tflite")
    expect(speakers).to_have_count(2)
    leaving = "dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert ready.evaluate(leaving)  # nothing would be lost
    ready.get_by_role("button", name="Remove bob").focus()
    ready.keyboard.press("Enter")
    expect(speakers).to_have_count(1)
    expect(ready.get_by_role("button", name="Remove ann-1")).to_be_focused()
    assert not ready.evaluate(leaving)  # asks first
    another = EXPORT.parent / "tfq_sv/assets/resnet18-real.tflite"
    asked: list[str] = []
    answers = [False, True]

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept() if answers.pop(0) else dialog.dismiss()

    ready.on("dialog", answer)
    ready.set_input_files("#model", another)
    expect(ready.locator("#model-line.error")).to_contain_text("The network before stays")
    expect(speakers).to_have_count(1)
    with ready.expect_file_chooser() as chooser:
        ready.click("#model")
    chooser.value.set_files(another)  # the same file again
    expect(speakers).to_have_count(0)
    expect(line).to_contain_text("resnet18-real.tflite")
    assert len(asked) == 2
    assert "is not saved" in asked[0]
