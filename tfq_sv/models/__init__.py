"""The networks, by name: `build("ResNet34")`. Plain functional tf_keras models."""

from tfq_sv.models.frontend import (
    FrontEnd,
    front_end,
    model_input,
    network_input,
    origin_of,
    set_origin,
)
from tfq_sv.models.importer import load_checkpoint, load_wespeaker
from tfq_sv.models.pooling import POOLINGS, pool
from tfq_sv.models.registry import NAMES, build

__all__ = [
    "NAMES",
    "POOLINGS",
    "FrontEnd",
    "build",
    "front_end",
    "load_checkpoint",
    "load_wespeaker",
    "model_input",
    "network_input",
    "origin_of",
    "pool",
    "set_origin",
]
