"""Makes the golden files of the Android library's instrumented test.

    tfq-sv make-corpus --out=corpus --notrain
    python tests/android/golden.py corpus

Synthetic speech, not VoxCeleb: three recordings of two voices of the test corpus, the shipped
ResNet18 at 4 bits with thresholds measured on its trials, and what SpeakerEncoder makes of them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

from tfq_sv import assets, files
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation import measurement, scoring
from tfq_sv.export import SpeakerEncoder, export_tflite, write_about
from tfq_sv.quantization import quantized_model
from tfq_sv.quantization.recipe import QuantizationRecipe

FOLDER = Path(__file__).parents[2] / "export/android/verifier/src/androidTest/resources"
RECORDINGS = {
    "ann-1.wav": "id10002/s1/00001.wav",
    "ann-2.wav": "id10002/s2/00001.wav",
    "bob.wav": "id10004/s1/00001.wav",
}
SECONDS = 2


def describe(file: Path) -> dict[str, object]:
    """What SpeakerEncoder makes of the golden recordings by a golden file."""
    encoder = SpeakerEncoder(file)
    embeddings = {
        name: encoder.embed(sf.read(file.with_name(name), dtype="float32")[0])
        for name in RECORDINGS
    }
    ann = embeddings["ann-1.wav"]
    return {
        "what": "made by tests/android/golden.py; synthetic speech (espeak-ng), not VoxCeleb",
        "inflated_sha256": encoder.about["inflated_sha256"],
        "thresholds": {name: at["threshold"] for name, at in encoder.about["thresholds"].items()},
        "scores": {
            "same": scoring.cosine(ann, embeddings["ann-2.wav"]),
            "other": scoring.cosine(ann, embeddings["bob.wav"]),
        },
        "embeddings": {
            name: np.round(vector.astype(float), 4).tolist() for name, vector in embeddings.items()
        },
    }


def main(folder: Path) -> None:
    corpus = Corpus.read(folder / "test")
    file = FOLDER / "golden.tflite"
    network = assets.load("resnet18-small")
    export_tflite(quantized_model.rounded(network, QuantizationRecipe.uniform(network, 4)), file)
    trials = Trials.read(folder / "test" / "trials.txt", corpus)
    found = measurement.evaluate(SpeakerEncoder(file), corpus, trials, progress="trials")
    thresholds = found.thresholds()
    thresholds["trials"]["source"] = "synthetic speech (espeak-ng), not VoxCeleb"
    write_about(file, **thresholds)
    for name, key in RECORDINGS.items():
        speech, rate = sf.read(corpus.paths[key], dtype="int16", stop=SECONDS * 16000)
        sf.write(FOLDER / name, speech, rate)
    with files.atomic(FOLDER / "golden.json") as temporary:
        # A line for each entry, not for each number.
        text = json.dumps(describe(file)).replace('], "', '],\n  "').replace(', "', ',\n  "')
        temporary.write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
