"""Losses on speaker embeddings."""

import math
from typing import Any

import tensorflow as tf
import tf_keras as keras


class AAMSoftmax(keras.layers.Layer):
    """Additive angular margin softmax (ArcFace; Deng et al., 2019), as WeSpeaker computes it.

    The logit of the true speaker is scale * cos(angle + margin), the others scale * cos(angle).
    Where angle + margin would pass pi, the logit keeps falling linearly.

    Args:
        speakers: number of training speakers.
        scale: of the logits.

    Attributes:
        margin: a variable, in radians, so that a schedule can raise it during training.
    """

    def __init__(self, speakers: int, scale: float = 32.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.speakers, self.scale = speakers, scale
        self.margin = tf.Variable(0.0, trainable=False, name="margin")

    def build(self, input_shape: Any) -> None:
        """Makes the class centres, (embed_dim, speakers)."""
        self.centers = self.add_weight(
            "centers", (int(input_shape[-1]), self.speakers), initializer="glorot_uniform"
        )
        super().build(input_shape)

    def call(self, embeddings: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Embeddings (B, D), labels int (B,) -> (mean loss, share of right answers), scalars.

        Rows with a negative label, whose speaker nobody knows, do not count.
        """
        known = tf.cast(labels >= 0, tf.float32)
        labels = tf.maximum(labels, 0)
        cosines = tf.matmul(
            tf.math.l2_normalize(tf.cast(embeddings, tf.float32), axis=1),
            tf.math.l2_normalize(self.centers, axis=0),
        )
        sines = tf.sqrt(tf.maximum(1.0 - tf.square(cosines), 1e-9))
        shifted = cosines * tf.cos(self.margin) - sines * tf.sin(self.margin)
        limit = tf.cos(math.pi - self.margin)
        shifted = tf.where(cosines > limit, shifted, cosines - (1.0 + limit))
        logits = tf.where(tf.one_hot(labels, self.speakers, True, False), shifted, cosines)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self.scale * logits)
        right = tf.equal(tf.argmax(cosines, axis=1, output_type=labels.dtype), labels)
        count = tf.maximum(tf.reduce_sum(known), 1.0)
        right = tf.reduce_sum(known * tf.cast(right, tf.float32)) / count
        return tf.reduce_sum(known * loss) / count, right


def cosine_distillation(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Mean of 1 - cosine between the embeddings of two networks, (B, D) each: a scalar.

    Verification scores are cosines, so a student whose embeddings point where the teacher's do
    verifies as the teacher does; no speaker label is needed.
    """
    student, teacher = (tf.math.l2_normalize(tf.cast(x, tf.float32), 1) for x in (student, teacher))
    return tf.reduce_mean(1.0 - tf.reduce_sum(student * teacher, axis=1))
