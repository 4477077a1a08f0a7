"""Settings from a YAML file, one `flag: value` per line; flags of the command line override them.

A setting without a value is one that the command line must give. A flag that may be repeated takes
a list.
"""

import difflib
import math
from pathlib import Path

from absl import flags

from tfq_sv import yaml_files
from tfq_sv.errors import InputError

_SHIPPED = Path(__file__).parents[1] / "training" / "conf"


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package.

    >>> shipped_recipes()
    ['df_resnet', 'df_resnet_lm', 'resnet', 'resnet_lm']
    """
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def check_finite(flag_values: flags.FlagValues) -> None:
    """Refuses NaN and infinity, which bounds of flags let pass."""
    for name in flag_values:
        value = flag_values[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--{name} must be a finite number, not {value}")


def apply_config(flag_values: flags.FlagValues, name: str) -> None:
    """Sets the flags that a YAML file names and the command line does not.

    Args:
        flag_values: a command's flags, already parsed.
        name: the file, or a shipped recipe.

    Raises:
        InputError: no such file, not a list of settings, an unknown one, a value that its flag does
            not take, or none and the command line gives none.
    """
    path = Path(name)
    if not path.is_file():
        path = _SHIPPED / f"{name}.yaml"
    if not path.is_file():
        raise InputError(
            f"--config {name} is no file, nor a shipped recipe: {', '.join(shipped_recipes())}"
        )
    settings = yaml_files.read(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path} must hold `setting: value` lines")
    known = sorted(set(flag_values) - {"config"})
    for key, value in settings.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0)
            raise InputError(f"{path}: unknown setting {key!r}; the nearest is {near[0]!r}")
        if flag_values[key].present:
            continue
        if value is None:
            raise InputError(f"{path} asks for --{key}: {flag_values[key].help}")
        try:
            repeated = isinstance(value, list) and isinstance(flag_values[key], flags.MultiFlag)
            flag_values[key].parse([str(x) for x in value] if repeated else str(value))
        except flags.Error as error:
            raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    check_finite(flag_values)
