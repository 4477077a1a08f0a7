"""export/android, on the JVM: its own tests, with LiteRT's Python package under its Interpreter.

Needs a Java runtime, 17 or later. The compiler and Kotlin's libraries are those of the Kotlin
kernel for Jupyter, the only ones on PyPI. The microphone is a stub; the sample app is compiled
alone.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import run_kotlin_kernel
from android import golden

import tfq_sv
from tfq_sv.evaluation import scoring
from tfq_sv.evaluation.score_calibration import Calibration
from tfq_sv.export import write_about
from tfq_sv.verification import enrolment_file

ANDROID = Path(__file__).parents[1] / "export" / "android"
STUBS = Path(__file__).parent / "android"
JARS = Path(run_kotlin_kernel.__file__).parent / "jars"
SOURCES = sorted(ANDROID.glob("verifier/src/*/kotlin/*.kt"))


def jars(*names: str) -> str:
    return ":".join(str(next(JARS.glob(f"{name}-[0-9]*.jar"))) for name in names)


def java(*arguments: str, limit: Callable[[], None] | None = None) -> str:
    """Runs a Java program with what Kotlin programs need; returns what it printed."""
    program = shutil.which("java")
    assert program, "no java: install a Java runtime, such as Debian's openjdk-17-jre-headless"
    # Light on machines that do other things, too.
    options = ["-XX:ActiveProcessorCount=1", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    done = subprocess.run(
        [program, *options, *arguments], capture_output=True, text=True, preexec_fn=limit
    )
    assert not done.returncode, done.stderr
    return done.stdout + done.stderr


def kotlinc(sources: Iterable[Path], class_path: str, out: Path) -> None:
    compiler = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    needs = jars(
        "kotlin-jupyter-kernel", "kotlin-stdlib", "kotlin-reflect", "kotlin-script-runtime"
    )
    # The language is that of the Kotlin in build.gradle.kts's Android plugin.
    options = ("-no-stdlib", "-no-reflect", "-Werror", "-jvm-target", "17")
    places = ("-language-version", "2.2", "-cp", class_path, "-d", str(out))
    files = [str(path) for path in sources]
    java("-Xmx768m", "-cp", needs, compiler, *options, *places, *files)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(tmp_path_factory.mktemp("kotlin"))


def compiled(folder: Path) -> str:
    """Class path of the library and its tests, compiled against the stubs."""
    platform = []
    for part in re.split(r"(?m)^(?=package )", (STUBS / "platform.stubs").read_text())[1:]:
        platform.append(folder / f"platform{len(platform)}.kt")
        platform[-1].write_text(part)
    libraries = jars(
        "kotlin-stdlib", "kotlinx-serialization-core-jvm", "kotlinx-serialization-json-jvm"
    )
    out = folder / "classes"
    kotlinc([*SOURCES, *STUBS.glob("*.kt"), *platform], libraries, out)
    resources = f"{ANDROID / 'verifier/src/androidTest/resources'}:{STUBS.parent / 'data'}"
    return f"{out}:{resources}:{libraries}"


def run(
    classes: str, folder: Path, suites: list[str], limit: Callable[[], None] | None = None
) -> str:
    """Runs test classes, whose files go to `folder`."""
    litert = f"{sys.executable}\n{STUBS / 'interpreter.py'}"
    options = ("-cp", classes, f"-Dlitert={litert}", f"-Djava.io.tmpdir={folder}")
    return java(*options, "org.junit.JunitKt", *suites, limit=limit)


@pytest.mark.slow
def test_its_own_tests(classes: str, tmp_path: Path) -> None:
    suites = [f"tfq.sv.{path.stem}" for path in SOURCES if path.stem.endswith("Test")]
    said = run(classes, tmp_path, suites)
    assert "FAILED" not in said, said
    for path in SOURCES:
        for name in re.findall(r"@Test\s+fun (\w+)", path.read_text()):
            assert f"PASSED tfq.sv.{path.stem}.{name}\n" in said
    base = json.loads((STUBS.parent / "data" / "enrolment.json").read_text())["base"]
    head = (base["network"], base["embed_dim"])
    written = enrolment_file.read(tmp_path / "from-kotlin.json", *head)
    expected = enrolment_file.loads(json.dumps(base), *head)
    assert list(written) == list(expected)
    for name, references in expected.items():
        for old, new in zip(references, written[name], strict=True):
            np.testing.assert_array_equal(old.embedding, new.embedding)
            assert old.seconds == new.seconds


@pytest.mark.slow
def test_llrs_are_those_of_python(classes: str, tmp_path: Path) -> None:
    """The golden test on the golden file with a calibration; of this there is no measured one."""
    folder = tmp_path / "resources"
    folder.mkdir()
    model = shutil.copy(golden.FOLDER / "golden.tflite", folder)
    write_about(
        model, calibration=Calibration(-9.0, 20.0, -2.0, 3.0, 0.5, 6.0, -1.0, 2.0, 3).about()
    )
    verifier = tfq_sv.SpeakerVerifier(model)
    verifier.enroll("ann", [golden.FOLDER / "ann-1.wav"])
    llrs = {
        kind: verifier.verify("ann", golden.FOLDER / name).llr
        for kind, name in {"same": "ann-2.wav", "other": "bob.wav"}.items()
    }
    values = json.loads((golden.FOLDER / "golden.json").read_text())
    (folder / "golden.json").write_text(json.dumps({**values, "llrs": llrs}))
    said = run(f"{folder}:{classes}", tmp_path, ["tfq.sv.GoldenTest"])
    assert "FAILED" not in said, said
    assert "PASSED tfq.sv.GoldenTest.decidesAsSpeakerEncoderDoes" in said


@pytest.mark.slow
def test_the_microphone_is_given_back(classes: str, tmp_path: Path) -> None:
    said = run(classes, tmp_path, ["tfq.sv.RecorderTest"])
    assert "FAILED" not in said, said
    assert said.count("PASSED") == 3


@pytest.mark.slow
def test_the_sample_app_compiles(classes: str, tmp_path: Path) -> None:
    """As a module of its own, so by what the library has public."""
    kotlinc(ANDROID.glob("sample/src/main/kotlin/*.kt"), classes, tmp_path)
    assert list(tmp_path.rglob("MainActivity.class"))


@pytest.mark.slow
def test_what_the_pages_show_compiles(classes: str, tmp_path: Path) -> None:
    speech = ", ".join(f"{name}: FloatArray" for name in ("first", "second", "third", "speech"))
    sources = []
    for page in (ANDROID.parents[1] / "README.md", ANDROID / "README.md"):
        for block in re.findall(r"^```kotlin\n(.*?)^```", page.read_text(), re.M | re.S):
            lines = block.splitlines()
            imports = [line for line in lines if line.startswith("import ")]
            body = [line for line in lines if line not in imports]
            name = f"page{len(sources)}"
            head = [
                f"package {name}",
                "import java.io.File",
                *imports,
                '@Suppress("UNUSED_VARIABLE")',
            ]
            main = f"fun android.content.Context.main({speech}) {{"
            sources.append(tmp_path / f"{name}.kt")
            sources[-1].write_text("\n".join([*head, main, *body, "}", ""]))
    assert len(sources) == 2
    kotlinc(sources, classes, tmp_path)


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(classes: str, tmp_path: Path) -> None:
    """No file may grow beyond 500 kB, and the golden file inflates to a megabyte."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    said = run(classes, tmp_path, ["tfq.sv.GoldenTest"], limit)
    assert "FAILED tfq.sv.GoldenTest.embedsAsSpeakerEncoderDoes" in said
    assert re.search(
        r"SpeakerException: .*\.tflite \(1061776 bytes\) cannot be written: .*make room", said
    )
    assert not [*tmp_path.rglob("*.tflite"), *tmp_path.rglob("*.part")]


def test_golden_values() -> None:
    expected = json.loads((golden.FOLDER / "golden.json").read_text())
    found = golden.describe(golden.FOLDER / "golden.tflite")
    for name, embedding in expected.pop("embeddings").items():
        assert scoring.cosine(found["embeddings"][name], embedding) > 0.9999
    scores = expected.pop("scores")
    assert found["scores"] == pytest.approx(scores, abs=1e-2)
    assert scores["other"] < expected["thresholds"]["eer"] < scores["same"]
    assert expected.items() <= found.items()


def test_dependencies_are_those_that_were_compiled_against() -> None:
    build = (ANDROID / "verifier" / "build.gradle.kts").read_text()
    version = re.search(r"kotlinx-serialization-json:([\d.]+)", build)
    assert version
    assert list(JARS.glob(f"kotlinx-serialization-json-jvm-{version[1]}.jar"))


def test_the_wrapper_is_gradles_own() -> None:
    """Its jar is a program that everybody runs who builds this; nobody sees what is in it."""
    wrapper = ANDROID / "gradle" / "wrapper"
    digest = hashlib.sha256((wrapper / "gradle-wrapper.jar").read_bytes()).hexdigest()
    # Gradle 9.4.0's and 9.4.1's, in gradle/actions, wrapper-checksums.json.
    assert digest == "55243ef57851f12b070ad14f7f5bb8302daceeebc5bce5ece5fa6edb23e1145c"
    assert os.access(ANDROID / "gradlew", os.X_OK)
    properties = (wrapper / "gradle-wrapper.properties").read_text()
    version = re.search(r"distributions/gradle-([\d.]+)-bin\.zip", properties)
    assert version
    assert re.search(r"^distributionSha256Sum=[0-9a-f]{64}$", properties, re.M)
    assert f"Gradle {version[1]}" in (ANDROID / "README.md").read_text()


def test_what_the_page_says_about_the_build_is_in_it() -> None:
    """Commands name modules that exist; versions and levels are those of the build files."""
    page = (ANDROID / "README.md").read_text()
    builds = {x.parent.name: x.read_text() for x in ANDROID.glob("*/build.gradle.kts")}
    tasks = re.findall(r"^ +\./gradlew :(\w+):(\w+)", page, re.M)
    assert len(tasks) == 4
    assert {module for module, _ in tasks} == set(builds)
    assert all(f'":{module}"' in (ANDROID / "settings.gradle.kts").read_text() for module in builds)
    level = re.search(r"\*\*minSdk (\d+)\.\*\*", page)
    assert level
    for build in builds.values():
        assert f"minSdk = {level[1]}" in build
    assert 'consumerProguardFiles("consumer-rules.pro")' in builds["verifier"]
    assert (ANDROID / "verifier" / "consumer-rules.pro").is_file()
    plugin = re.search(r"Android plugin ([\d.]+) asks", page)
    assert plugin
    assert (
        f'"com.android.library") version "{plugin[1]}.'
        in (ANDROID / "build.gradle.kts").read_text()
    )
