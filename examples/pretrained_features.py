"""Trains on a folder of images: features of a pretrained network, then a small head.

    python examples/pretrained_features.py TRAIN --test TEST

`TRAIN` has a folder of images for each class, named like it, and so has `TEST`. A
network of `keras.applications` turns each image into a vector, once; Keras downloads
its weights of ImageNet. The vectors are written to `features.npz`, and heads are
trained on them with and without LogitClip, for which a CPU is enough. Without `--test`,
a fifth of each class is split off to test on.

Where labels are wrong, more is to be compared: losses, values of tau, noise that is
made on purpose. The file is data for a study (docs/studies.md):

    [data]
    name = "features.npz"
    standardize = true

Images are read with Pillow, so that this runs on every backend:
`keras.utils.image_dataset_from_directory`, which reads the same folders, needs
TensorFlow or Grain. They are enlarged or shrunk to squares.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import two_heads

try:
    from PIL import Image
except ModuleNotFoundError as error:
    raise ImportError(
        "This example needs Pillow, which is not installed. "
        'Install it with: pip install "keras-logitclip[demo]"'
    ) from error

# Those that take pixels from 0 to 255; others want them preprocessed.
NETWORKS = ("EfficientNetV2B0", "EfficientNetV2S", "MobileNetV3Small", "ConvNeXtTiny")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# Whatever a file is called. Pillow starts other programs for some formats, such as EPS.
FORMATS = ("BMP", "GIF", "JPEG", "PNG")
BATCH_SIZE = 32


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("train", type=Path, help="folder with one for each class")
    parser.add_argument("--test", type=Path, help="another one, to test on")
    parser.add_argument("--network", choices=NETWORKS, default=NETWORKS[0])
    parser.add_argument(
        "--weights", default="imagenet", help='"imagenet", "none" or a file'
    )
    parser.add_argument("--size", type=int, default=224, help="pixels of a side")
    parser.add_argument("--output", type=Path, default=Path("features.npz"))
    rates = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    two_heads.add_options(parser, tau=1.0, epochs=30, learning_rates=rates)
    arguments = parser.parse_args()
    if arguments.size < 32 or arguments.epochs < 1:
        parser.error("--size must be at least 32, and --epochs at least 1")
    for folder in (arguments.train, arguments.test, arguments.output.parent):
        if folder and not folder.is_dir():
            parser.error(f"no such folder: {folder}")
    if arguments.output.suffix != ".npz":
        parser.error(f"--output must end in .npz: {arguments.output}")
    return arguments


def class_names_in(folder):
    folders = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(name for name in folders if not name.startswith("."))


def find_images(folder, class_names):
    """Returns the paths of all images, and for each the position of its class."""
    unknown = sorted({*class_names_in(folder)} - {*class_names})
    if unknown:
        raise SystemExit(
            f"Expected the folders in {folder} to be among {class_names[:10]}. "
            f"Received: {unknown[:10]}"
        )
    paths, labels = [], []
    for label, name in enumerate(class_names):
        files = sorted((folder / name).rglob("*"))
        found = [path for path in files if path.suffix.lower() in SUFFIXES]
        paths += found
        labels += len(found) * [label]
    if not paths:
        raise SystemExit(f"Found no images in the folders of {folder}")
    return paths, np.array(labels)


def read_image(path, size):
    """Returns an image of that size as numbers from 0 to 255."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return np.asarray(image.convert("RGB").resize((size, size)), "float32")
    except Exception as error:  # Pillow raises many kinds for damaged files.
        raise SystemExit(f"Cannot read the image {str(path)!r}: {error}") from error


def build_network(arguments):
    """Returns a network without its last layer: the means of its feature maps."""
    build = getattr(keras.applications, arguments.network)
    return build(
        include_top=False,
        weights=None if arguments.weights == "none" else arguments.weights,
        input_shape=(arguments.size, arguments.size, 3),
        pooling="avg",
    )


def compute_features(network, paths):
    """Returns the vector that the network makes of each image."""
    size = network.input_shape[1]
    # Of nearly equal sizes, because backends compile anew for each size.
    batches = np.array_split(paths, -(-len(paths) // BATCH_SIZE))
    features = []
    for number, batch in enumerate(batches, start=1):
        pixels = np.stack([read_image(path, size) for path in batch])
        features.append(network.predict_on_batch(pixels))
        print(f"\r{number} of {len(batches)} batches", end="", flush=True)
    print(f": {len(paths)} images, {features[0].shape[1]} features of each")
    return np.concatenate(features)


def make_features(arguments):
    """Returns the arrays of the file, by their names."""
    class_names = class_names_in(arguments.train)
    folders = {"train": arguments.train, "test": arguments.test}
    found = {
        part: find_images(folder, class_names)
        for part, folder in folders.items()
        if folder
    }
    network = build_network(arguments)
    arrays = {"class_names": np.array(class_names)}
    for part, (paths, labels) in found.items():
        arrays[f"x_{part}"] = compute_features(network, paths)
        arrays[f"y_{part}"] = labels
    return arrays


def split(arrays):
    """Returns features to train and to test on, then their labels."""
    names = ("x_train", "x_test", "y_train", "y_test")
    if "x_test" in arrays:
        return [arrays[name] for name in names]
    x, y = arrays["x_train"], arrays["y_train"]
    return two_heads.split_off_fifth(arrays["class_names"][y], x, y)


def standardize(x_train, x_test):
    """Gives each feature of the former a mean of 0 and a deviation of 1."""
    mean, deviation = x_train.mean(axis=0), x_train.std(axis=0)
    deviation[deviation == 0] = 1
    return (x_train - mean) / deviation, (x_test - mean) / deviation


def main():
    arguments = parse_arguments()
    arrays = make_features(arguments)
    np.savez(arguments.output, **arrays)
    print(f"The features are in {arguments.output}.\n")
    x_train, x_test, y_train, y_test = split(arrays)
    x_train, x_test = standardize(x_train, x_test)
    num_classes = len(arrays["class_names"])
    heads = two_heads.train(x_train, y_train, num_classes, arguments)
    print(f"\n{two_heads.make_table(heads, {'test labels': (x_test, y_test)})}")


if __name__ == "__main__":
    main()
