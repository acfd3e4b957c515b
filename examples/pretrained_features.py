"""Trains a small head on features that a pretrained network computes of images.

    python examples/pretrained_features.py TRAIN --test TEST

`TRAIN` and `TEST` have a folder of images for each class, with the name of the class. A
network of `keras.applications` with weights of ImageNet, which Keras downloads,
computes a feature vector of each image once. The vectors are written to `features.npz`.
Heads are trained on them with and without LogitClip, for which a CPU is enough. Without
`--test`, a fifth of each class is the test set.

A study (docs/studies.md) can compare more losses, values of tau and kinds of noise on
this file:

    [data]
    name = "features.npz"
    standardize = true

Images are read with Pillow and resized to squares.
`keras.utils.image_dataset_from_directory` reads the same folders, but needs TensorFlow
or Grain.
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

# Networks that take pixels from 0 to 255. Others need preprocessed ones.
NETWORKS = ("EfficientNetV2B0", "EfficientNetV2S", "MobileNetV3Small", "ConvNeXtTiny")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# The allowed contents of files. For other formats such as EPS, Pillow starts programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG")
BATCH_SIZE = 32


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("train", type=Path, help="folder with a folder for each class")
    parser.add_argument("--test", type=Path, help="folder of the test set")
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
    """Returns the paths of all images and their class ids."""
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
    """Returns an image of this size as numbers from 0 to 255."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return np.asarray(image.convert("RGB").resize((size, size)), "float32")
    except Exception as error:  # A damaged file can cause any error.
        raise SystemExit(f"Cannot read the image {str(path)!r}: {error}") from error


def build_network(arguments):
    """Returns a network without its last layer, which returns means of feature maps."""
    build = getattr(keras.applications, arguments.network)
    return build(
        include_top=False,
        weights=None if arguments.weights == "none" else arguments.weights,
        input_shape=(arguments.size, arguments.size, 3),
        pooling="avg",
    )


def compute_features(network, paths):
    """Returns the feature vectors of images."""
    size = network.input_shape[1]
    # Batches of nearly equal sizes, because backends compile anew for each size.
    batches = np.array_split(paths, -(-len(paths) // BATCH_SIZE))
    features = []
    for number, batch in enumerate(batches, start=1):
        pixels = np.stack([read_image(path, size) for path in batch])
        features.append(network.predict_on_batch(pixels))
        print(f"\r{number} of {len(batches)} batches", end="", flush=True)
    print(f": {len(paths)} images, {features[0].shape[1]} features of each")
    return np.concatenate(features)


def make_features(arguments):
    """Returns the arrays for the file, by their names."""
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
    """Returns training features, test features, training labels and test labels."""
    names = ("x_train", "x_test", "y_train", "y_test")
    if "x_test" in arrays:
        return [arrays[name] for name in names]
    x, y = arrays["x_train"], arrays["y_train"]
    return two_heads.split_off_fifth(arrays["class_names"][y], x, y)


def standardize(x_train, x_test):
    """Standardizes all features by the mean and deviation of the training features."""
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
