"""Flags of the commands that train: noise, reverberation, codecs on the speech; precision."""

from absl import flags

from tfq_sv.cli.common import print_skipped
from tfq_sv.errors import InputError
from tfq_sv.training.augment import Augmenter, find_noises, find_rirs
from tfq_sv.training.options import PRECISIONS


def define_precision(flag_values: flags.FlagValues) -> None:
    """Defines --precision, for commands that train."""
    flags.DEFINE_enum(
        "precision",
        "fp32",
        PRECISIONS,
        "fp16 and bf16: convolutions in 16 bits",
        flag_values=flag_values,
    )


def define_augmentation(flag_values: flags.FlagValues) -> None:
    """Defines --aug_prob, --musan, --rirs and --codec_prob."""
    flags.DEFINE_float(
        "aug_prob", 0.0, "probability of noise or reverberation", flag_values=flag_values
    )
    flags.DEFINE_string("musan", None, "MUSAN: noise/, speech/, music/", flag_values=flag_values)
    flags.DEFINE_string(
        "rirs", None, "RIRS_NOISES, or a folder of responses", flag_values=flag_values
    )
    flags.DEFINE_float(
        "codec_prob",
        0.0,
        "probability of a codec: G.711, GSM, AMR, Opus or MP3, as evaluate --conditions measures",
        flag_values=flag_values,
    )


def augmenter(
    flag_values: flags.FlagValues, speeds: tuple[float, ...] = (1.0,)
) -> Augmenter | None:
    """Returns what the flags ask for, and the speeds; None if that is nothing."""
    musan, rirs = flag_values["musan"].value, flag_values["rirs"].value
    probability = flag_values["aug_prob"].value
    given = bool(musan or rirs)
    if probability and not given:
        raise InputError(
            f"aug_prob is {probability}, but there is nothing to add: give --musan and --rirs, "
            "or --aug_prob=0"
        )
    if given and not probability:
        raise InputError("--musan and --rirs need --aug_prob, 0.6 in the field")
    codecs = flag_values["codec_prob"].value
    if not given and not codecs and len(speeds) == 1:
        return None
    return Augmenter(
        find_noises(musan) if musan else {},
        find_rirs(rirs) if rirs else [],
        probability,
        speeds,
        codec_probability=codecs,
    )


def print_bad_additions(augmenter: Augmenter | None) -> None:
    """Lists the noises and responses that turned out bad."""
    if augmenter and augmenter.skipped:
        files = [*augmenter.rirs, *(path for paths in augmenter.noises.values() for path in paths)]
        print_skipped(augmenter.skipped, len(files))
