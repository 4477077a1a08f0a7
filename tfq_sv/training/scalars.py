"""Curves for TensorBoard."""

import os
from types import TracebackType

import tensorflow as tf


class Scalars:
    """Writes scalars into a folder that TensorBoard shows; TensorBoard need not be installed.

    >>> import tempfile
    >>> with Scalars(tempfile.mkdtemp()) as scalars:
    ...     scalars.write(7, loss=2.5, margin=0.1)
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        """Opens a folder; None writes nothing."""
        self._writer = (
            tf.summary.create_noop_writer()
            if folder is None
            else tf.summary.create_file_writer(os.fspath(folder))
        )
        # What tf.summary.scalar does, which would import TensorBoard.
        self._metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        )

    def write(self, step: int, **values: float) -> None:
        """Adds a point to each curve."""
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.write(name, tf.constant(value, tf.float32), step, self._metadata)

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
