"""What SpeechBrain keeps beside its networks: hyperparams.yaml, read without running any of it.

The file is a program: `!new:` and `!apply:` name Python objects to make and functions to call.
Here they are words. A mapping with such a tag is a mapping, `!ref <name>` is the value of that name
where it is a plain one, and everything else with a tag is None.
"""

import re
from pathlib import Path
from typing import Any

from tfq_sv import yaml_files
from tfq_sv.errors import InputError

WEIGHTS = "embedding_model.ckpt"
HYPERPARAMS = "hyperparams.yaml"
_REFERENCE = re.compile(r"^<([\w.\[\]]+)>$")
_TAG = "!tag"
_MODEL = "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"
_FBANK = "speechbrain.lobes.features.Fbank"
_NORM = "speechbrain.processing.features.InputNormalization"
_SHAPE = {
    "kernel_sizes": [5, 3, 3, 3, 1],
    "dilations": [1, 2, 3, 4, 1],
    "groups": [1, 1, 1, 1, 1],
    "global_context": True,
    "res2net_scale": 8,
}
"""Arguments of the network that may be given if they say what is so anyway."""

_FRONT_END: dict[str, dict[str, Any]] = {
    _FBANK: {
        **{"sample_rate": 16000, "n_fft": 400, "win_length": 25, "hop_length": 10},
        **{"f_min": 0, "f_max": 8000, "deltas": False, "context": False},
        "filter_shape": "triangular",
    },
    _NORM: {"norm_type": "sentence", "std_norm": False},
}


def read_hyperparams(file: Path) -> dict[str, Any]:
    """Returns the configuration of an ECAPA-TDNN, in WeSpeaker's words.

    Args:
        file: hyperparams.yaml.

    Raises:
        InputError: no YAML; no ECAPA-TDNN, or one of another form or front end.
    """
    content = _parsed(file)
    names = content if isinstance(content, dict) else {}
    parts = {entry[_TAG]: entry for entry in names.values() if _tagged(entry)}

    def settings(kind: str) -> dict[str, Any]:
        if kind not in parts:
            raise InputError(f"{file} has no {kind}; only SpeechBrain's ECAPA-TDNN is read")
        return {key: _resolved(value, names) for key, value in parts[kind].items() if key != _TAG}

    network = settings(_MODEL)
    fbank = settings(_FBANK)
    bins = fbank.pop("n_mels", 40)
    _require(file, _FBANK, fbank, _FRONT_END[_FBANK])
    _require(file, _NORM, settings(_NORM), _FRONT_END[_NORM])
    sizes = ("input_size", "lin_neurons", "channels", "attention_channels", "se_channels")
    shape = {key: value for key, value in network.items() if key not in sizes}
    _require(file, _MODEL, shape, _SHAPE)
    if type(bins) is not int or network.get("input_size") != bins:
        raise InputError(
            f"{file}: the network takes {network.get('input_size')!r:.40} mel bins, the front end "
            f"gives {bins!r:.40}; expected equal numbers"
        )
    return {
        "origin": "SpeechBrain",
        "model": "ECAPA_TDNN_SpeechBrain",
        "model_args": {"feat_dim": bins, "embed_dim": network.get("lin_neurons", 192)},
    }


def _require(file: Path, kind: str, settings: dict[str, Any], usual: dict[str, Any]) -> None:
    for key, value in settings.items():
        if key not in usual or value != usual[key]:
            raise InputError(
                f"{file}: {kind.rpartition('.')[2]} has {key}: {value!r:.60}, which is not "
                f"supported; expected {usual.get(key, 'no such setting')!r:.60}"
            )


def _parsed(file: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values, and mappings that remember the name of their tag."""

    def tagged(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {**loader.construct_mapping(node, deep=True), _TAG: suffix.removeprefix("new:")}
        if suffix == "ref" and (found := _REFERENCE.match(str(node.value))):
            return _Reference(found[1])
        return None

    Loader.add_multi_constructor("!", tagged)
    return yaml_files.read(file, Loader)


class _Reference(str):
    """The name of another entry."""


def _tagged(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get(_TAG), str)


def _resolved(value: Any, names: dict[str, Any]) -> Any:
    """Follows references, each no more often than there are names."""
    for _ in range(len(names) + 1):
        if not isinstance(value, _Reference):
            return value
        value = names.get(str(value))
    return None
