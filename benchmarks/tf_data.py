"""A `tf.data` pipeline that does what `input_pipeline.py` measures: its peer, in an interpreter of
its own, as TensorFlow is none of retinue's dependencies.

    PYTHON benchmarks/tf_data.py [--jitter 0.4] [--hue 0.1] JPEG …

Every line on standard input asks for one batch of all files, which is answered by the seconds that
it took, the processor's and the wall's, and the batch's mean and spread. The crop alone is decoded
(`decode_and_crop_jpeg`), as TensorFlow's own trainings on ImageNet do; one thread, nothing read
ahead.
"""

from __future__ import annotations

import argparse
import sys
import time

import tensorflow as tf

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pipeline(paths: list[str], jitter: float, hue: float) -> tf.data.Dataset:
    """Batches of all of `paths`, again and again, float32 (n, 224, 224, 3)."""

    def one(path: tf.Tensor) -> tf.Tensor:
        content = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(content),
            tf.zeros((1, 0, 4)),
            min_object_covered=0.0,
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(content, window, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE)) / 255
        image = tf.image.random_flip_left_right(image)
        if jitter:
            image = tf.image.random_brightness(image, jitter)
            image = tf.image.random_contrast(image, 1 - jitter, 1 + jitter)
            image = tf.image.random_saturation(image, 1 - jitter, 1 + jitter)
            if hue:
                image = tf.image.random_hue(image, hue)
            image = tf.clip_by_value(image, 0.0, 1.0)
        return (image - tf.constant(MEAN)) / tf.constant(STD)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False  # no reading ahead
    options.experimental_warm_start = False
    files = tf.data.Dataset.from_tensor_slices(paths).repeat()
    return files.map(one).batch(len(paths)).with_options(options)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--hue", type=float, default=0.0)
    parser.add_argument("paths", nargs="+", metavar="JPEG")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    batches = iter(pipeline(options.paths, options.jitter, options.hue))
    print("TensorFlow", tf.__version__, flush=True)
    used = time.process_time()
    for _ in sys.stdin:
        began = time.perf_counter()
        batch = next(batches).numpy()
        # Since the last answer: whatever may have been read ahead is some batch's time, too.
        before, used = used, time.process_time()
        taken = used - before, time.perf_counter() - began
        assert batch.shape == (len(options.paths), SIZE, SIZE, 3)
        print(*taken, float(batch.mean()), float(batch.std()), flush=True)


if __name__ == "__main__":
    main()
