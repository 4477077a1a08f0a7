"""`SpeakerVerifier.verify` and sherpa-onnx's Python package, on the same networks: time and memory.

    pip install onnx sherpa-onnx sherpa-onnx-core
    python benchmarks/sherpa.py --random=resnet34
    python benchmarks/sherpa.py --checkpoint=campplus_cn_en_common.pt --model=campplus-4bit.tflite \
        --checkpoint=resnet34.pt --model=resnet34.tflite

A checkpoint is CAM++ of 3D-Speaker or a network of WeSpeaker; --random writes WeSpeaker's ResNet34
of full size with random weights, which take the same time and memory as trained ones, and the same
rounded to 4 bits. The float
ONNX is made from the checkpoint, as 3D-Speaker's export makes it, with sherpa-onnx's metadata. Each
verifies 3 s of sound against one enrolled speaker, front end included, on one thread, in a process
of its own, one after the other, for some rounds. Time of the processor is that of all threads;
other work on the machine changes it less than the clock's. Memory is the process's greatest
resident set, and what of that is not Python with NumPy alone.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RATE, SECONDS, RUNS, WARM = 16000, 3, 30, 5
METADATA = {
    "framework": "3d-speaker",
    "language": "zh-en",
    "url": "",
    "comment": "",
    "sample_rate": str(RATE),
    "normalize_samples": "1",
    "feature_normalize_type": "global-mean",
}
SYSTEMS = (
    "Python with NumPy",
    "SpeakerVerifier, inflated",
    "SpeakerVerifier, embed",
    "sherpa-onnx",
)


def main(options: argparse.Namespace) -> None:
    pairs = list(zip(options.checkpoint, options.model, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        networks = {model: f"{folder}/{i}.onnx" for i, (_, model) in enumerate(pairs)}
        for checkpoint, model in pairs:
            call = [sys.executable, __file__, f"--export={networks[model]}"]
            subprocess.run([*call, f"--checkpoint={checkpoint}"], check=True)
        found: dict[str, dict[str, list[dict[str, Any]]]] = {
            model: {system: [] for system in SYSTEMS} for model in networks
        }
        for _ in range(options.rounds):
            for (model, onnx), system in itertools.product(networks.items(), SYSTEMS):
                path = onnx if system == "sherpa-onnx" else model
                call = [sys.executable, __file__, f"--system={system}", f"--model={path}"]
                answer = subprocess.run(call, check=True, capture_output=True, text=True).stdout
                found[model][system].append(json.loads(answer.splitlines()[-1]))
        for model, onnx in networks.items():
            sizes = [Path(path).stat().st_size / 1e6 for path in (model, onnx)]
            print(f"\n{model}: {sizes[0]:.2f} MB; ONNX, float32: {sizes[1]:.2f} MB")
            table(found[model])


def table(found: dict[str, list[dict[str, Any]]]) -> None:
    scores = [f"{system} {found[system][0]['score']:.4f}" for system in SYSTEMS[1:]]
    print(f"cosine of the two sounds: {', '.join(scores)}")
    rest = np.median([one["peak_mb"] for one in found[SYSTEMS[0]]])
    print(
        "| verify of 3 s | clock, ms | processor, ms | opening, s | peak, MB | without Python, MB |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    for system in SYSTEMS[1:]:
        rows = found[system]
        wall, used, opened, peak = (
            float(np.median([row[key] for row in rows]))
            for key in ("wall_ms", "used_ms", "opened_s", "peak_mb")
        )
        cells = f"{wall:.1f} | {used:.1f} | {opened:.2f} | {peak:.0f} | {peak - rest:.0f}"
        print(f"| {system} | {cells} |")


def measure(system: str, path: str) -> dict[str, float]:
    """Of this process: opening, verifying, memory."""
    rng = np.random.default_rng(0)
    voices = [rng.normal(0, 0.1, SECONDS * RATE).astype(np.float32) for _ in range(2)]
    voices[1] += 0.3 * np.sin(np.arange(len(voices[1])) * 0.08).astype(np.float32)
    found: dict[str, float] = {}
    if system != SYSTEMS[0]:
        start = time.perf_counter()
        verify = (sherpa if system == "sherpa-onnx" else ours)(path, system, voices[0])
        found["opened_s"] = time.perf_counter() - start
        times = []
        for _ in range(WARM + RUNS):
            begun = time.perf_counter(), time.process_time()
            found["score"] = verify(voices[1])
            times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        wall, used = 1e3 * np.median(times[WARM:], axis=0)
        found |= {"wall_ms": float(wall), "used_ms": float(used)}
    return found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def ours(path: str, system: str, voice: np.ndarray) -> Callable[[np.ndarray], float]:
    from tfq_sv.verification.speaker_verifier import SpeakerVerifier

    verifier = SpeakerVerifier(path, fast=system.endswith("inflated"))
    verifier.enroll("ann", [voice], check=False)
    return lambda sound: verifier.verify("ann", sound, 0.5).score


def sherpa(path: str, system: str, voice: np.ndarray) -> Callable[[np.ndarray], float]:
    import sherpa_onnx

    config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=path, num_threads=1)
    extractor = sherpa_onnx.SpeakerEmbeddingExtractor(config)
    manager = sherpa_onnx.SpeakerEmbeddingManager(extractor.dim)

    def embed(sound: np.ndarray) -> Any:
        stream = extractor.create_stream()
        stream.accept_waveform(sample_rate=RATE, waveform=sound)
        stream.input_finished()
        return np.array(extractor.compute(stream))

    manager.add("ann", embed(voice))

    def verify(sound: np.ndarray) -> float:
        embedding = embed(sound)
        manager.verify("ann", embedding, threshold=0.5)
        return float(manager.score("ann", embedding))

    return verify


def export(checkpoint: str, path: str) -> None:
    """Writes a network as ONNX (B, T, 80) -> (B, embed_dim), both B and T free."""
    import onnx
    import torch
    from torch.nn import functional as F

    from tfq_sv.models import torch_reference
    from tfq_sv.models.checkpoint import read_checkpoint

    def segment_means(x: torch.Tensor) -> torch.Tensor:
        """As 3D-Speaker has them: for every length, where slices would hold for one."""
        means = F.avg_pool1d(x, 100, 100, ceil_mode=True).unsqueeze(-1)
        return means.expand(*means.shape[:-1], 100).flatten(-2)[..., : x.shape[-1]]

    torch_reference.campplus._segment_means = segment_means
    read = read_checkpoint(checkpoint)
    state = {key: torch.from_numpy(np.array(value)) for key, value in read.state.items()}

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch_reference.embed(state, x, epsilon=read.epsilon)

    features = torch.zeros(1, 345, 80)
    free = {"x": {0: "B", 1: "T"}, "embedding": {0: "B"}}
    names = {"input_names": ["x"], "output_names": ["embedding"], "dynamic_axes": free}
    torch.onnx.export(Network().eval(), (features,), path, opset_version=17, dynamo=False, **names)
    model = onnx.load(path)
    dim = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    for key, value in {**METADATA, "output_dim": str(dim)}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)


def random_resnet34(path: str) -> None:
    """Writes PATH.pt, WeSpeaker's ResNet34 of 32 to 256 channels, and PATH.tflite, 4 bits of it."""
    import torch

    import tfq_sv
    from tfq_sv.export import export_tflite
    from tfq_sv.models import load_checkpoint

    rng = np.random.default_rng(0)
    state: dict[str, torch.Tensor] = {}

    def put(key: str, values: np.ndarray) -> None:
        state[key] = torch.from_numpy(values.astype(np.float32))

    def conv(name: str, norm: str, out: int, into: int, size: int) -> None:
        scale = np.sqrt(2 / (into * size * size))
        put(f"{name}.weight", rng.normal(0, scale, (out, into, size, size)))
        put(f"{norm}.weight", rng.uniform(0.2, 0.6, out))
        put(f"{norm}.running_var", rng.uniform(0.5, 1.5, out))
        for leaf in ("bias", "running_mean"):
            put(f"{norm}.{leaf}", rng.normal(0, 0.1, out))

    conv("conv1", "bn1", 32, 1, 3)
    width = 32
    for stage, (blocks, out) in enumerate(zip((3, 4, 6, 3), (32, 64, 128, 256), strict=True), 1):
        for block in (f"layer{stage}.{i}" for i in range(blocks)):
            conv(f"{block}.conv1", f"{block}.bn1", out, width, 3)
            conv(f"{block}.conv2", f"{block}.bn2", out, out, 3)
            if width != out:
                conv(f"{block}.shortcut.0", f"{block}.shortcut.1", out, width, 1)
            width = out
    put("seg_1.weight", rng.normal(0, 0.01, (256, 2 * 10 * width)))
    put("seg_1.bias", np.zeros(256))
    torch.save(state, f"{path}.pt")
    network = load_checkpoint(f"{path}.pt")
    recipe = tfq_sv.QuantizationRecipe.uniform(network, bits=4)
    export_tflite(tfq_sv.quantize(network, recipe, calibrate=False), f"{path}.tflite")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", action="append", help="a network; may be repeated")
    parser.add_argument("--model", action="append", help="the same one, quantized (.tflite)")
    parser.add_argument("--random", help="name of a ResNet34 of random weights to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--system", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--export", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.random:
        random_resnet34(given.random)
    elif given.export:
        export(given.checkpoint[0], given.export)
    elif given.system:
        print(json.dumps(measure(given.system, given.model[0])))
    else:
        main(given)
