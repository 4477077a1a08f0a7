"""The notebooks run from top to bottom, only smaller."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from checkpoints import save, state_like
from nbclient import NotebookClient
from workers import PATIENCE

import tfq_sv
from tfq_sv.export import read_about

COLAB = Path(__file__).parents[1] / "colab"
NOTEBOOKS = {path.stem: path for path in sorted(COLAB.glob("*.ipynb"))}
SMALLER = {"TFQ_SV_NOTEBOOK_SPEAKERS": "4", "TFQ_SV_NOTEBOOK_STEPS": "2"}


def read(name: str) -> Any:
    return nbformat.read(NOTEBOOKS[name], as_version=4)


SHIPPED = """
from tfq_sv.models import FrontEnd, pool
from tfq_sv.models.layers import conv, embedding, norm
from tf_keras import Input, Model

def three_layers(name):
    features = Input((None, 80), name="features")
    x = norm(conv(FrontEnd()(features), "conv1", 8, 3, 2), "bn1", relu=True)
    x = norm(conv(x, "layer3.1.conv1", 32, 3, 2), "bn2", relu=True)
    return Model(features, embedding(pool(x, "TSTP"), 128, False), name="three_layers")

assets.load = three_layers
"""
"""Three layers in place of the shipped network: a cell after the imports."""


CORPUS = """
from functools import partial

CorpusSpec = partial(CorpusSpec, utterances=2, test_utterances=3, seconds=2.0)
"""


def after_imports(notebook: Any, source: str) -> Any:
    place = next(i for i, cell in enumerate(notebook.cells) if "import tfq_sv" in cell.source)
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(source))
    return notebook


def run(notebook: Any, folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Executes a notebook on little speech, in a folder of its own; returns what it printed."""
    after_imports(notebook, CORPUS)
    for setting, value in SMALLER.items():
        patch.setenv(setting, value)
    client = NotebookClient(
        notebook,
        timeout=PATIENCE,
        startup_timeout=PATIENCE,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
    )
    client.execute()
    return "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )


def filled_in(notebook: Any, form: dict[str, str]) -> Any:
    """The notebook with other values in its form fields."""
    for line, other in form.items():
        cell = next(cell for cell in notebook.cells if line in cell.source)
        cell.source = cell.source.replace(line, other)
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "printed", "written"),
    [
        (
            "quantize_and_ship",
            ["4-bit .tflite, inflate", "4-bit, inflated on the phone", "voice"],
            ["speaker.tflite", "result.png"],
        ),
        (
            "method_step_by_step",
            ["4 bits, rounded", "mixed, rounded", "1 bit static, ", "1 bit adaptive, "],
            ["bits.png", "result.png"],
        ),
        (
            "your_own_model",
            ["frame4     1 bits", "FP32 control, Keras", "fine-tuned, .tflite"],
            ["tdnn.tflite", "result.png"],
        ),
    ],
)
def test_notebook(
    name: str,
    printed: list[str],
    written: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "your_own_model":
        notebook = filled_in(read(name), {"128": "24", "384": "48"})  # channels
    else:
        notebook = after_imports(read(name), SHIPPED)
    found = run(notebook, tmp_path, monkeypatch)
    assert "synthetic speech (espeak-ng), 4 voices" in found
    for text in printed:
        assert text in found
    for file in written:
        assert (tmp_path / file).stat().st_size


@pytest.mark.slow
def test_a_checkpoint_is_quantized_and_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tfq_sv.models.build("ResNet18", channels=8, embed_dim=32)
    save(tmp_path / "mine" / "avg_model.pt", state_like(small))
    config = "model: ResNet18\nmodel_args: {feat_dim: 80, embed_dim: 32, pooling_func: TSTP}\n"
    (tmp_path / "mine" / "config.yaml").write_text(config)
    form = {
        'CHECKPOINT = ""': 'CHECKPOINT = "mine"',
        "BITS = 4": "BITS = 2",
        "CALIBRATE = False": "CALIBRATE = True",
    }
    found = run(filled_in(read("quantize_and_ship"), form), tmp_path, monkeypatch)
    assert "32-d embedding" in found
    about = read_about(tmp_path / "speaker.tflite")
    assert about["embed_dim"] == 32
    assert set(about["recipe"].values()) == {2}
    assert about["thresholds"]["eer"]["threshold"] is not None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_committed_without_outputs(name: str) -> None:
    for cell in read(name).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NOTEBOOKS)
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("beside_a_clone", [True, False])
def test_the_first_cell_installs_what_is_missing(
    name: str, there: bool, beside_a_clone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(cell for cell in read(name).cells if cell.cell_type == "code")
    assert first.source.count("%pip install") == 1
    runs = first.source.replace('%pip install -q "$SOURCE"', "installed.append(SOURCE)")
    (tmp_path / "colab").mkdir()
    if beside_a_clone:
        (tmp_path / "setup.py").touch()
    monkeypatch.chdir(tmp_path / "colab")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: there or None)
    installed: list[str] = []
    exec(runs, {"installed": installed})
    assert installed == ([] if there else ["..[demo]" if beside_a_clone else "tfq-sv[demo]"])


def test_readme_names_every_notebook() -> None:
    readme = (COLAB.parent / "README.md").read_text()
    assert NOTEBOOKS
    for path in NOTEBOOKS.values():
        assert f"colab/{path.name}" in readme
