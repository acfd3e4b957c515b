"""Estimates how many labels of your data are wrong, and finds them.

    python examples/clean_labels.py train.csv --text text --label category
    python examples/clean_labels.py images.npz

`train.csv` has a column of texts and a column of labels. `images.npz` has the arrays
`x_train`, `y_train` and optionally `class_names` (`numpy.savez`). `x_train` are images,
or feature vectors such as those of pretrained_features.py.

A network with one hidden layer of 256 units is trained five times with clipped logits,
each time on four fifths of the samples. The learning rate is the best one for held-out
labels. Afterwards the folder `cleaned` contains

- `report.html`, a page with the share of wrong labels, the transition matrix, and the
  worst labels with their images or texts;
- `errors.csv`: the labels that look wrong, the worst first, with a suggestion;
- `cleaned.csv` or `cleaned.npz`: the other samples, to train your own model.

Look at the errors before you drop them. The same command resumes an interrupted run.
The network is small: if yours is much better, pass its own held-out logits to
`keras_logitclip.cleaning`.

    pip install "keras-logitclip[cleaning]"
"""

import argparse
import base64
import csv
import functools
import html
import io
import os
import string
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import text_intents

from keras_logitclip import cleaning
from keras_logitclip import tuning

RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
LISTED = 200
PAGE = string.Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>$title</title>
<style>
body { font-family: sans-serif; max-width: 60em; margin: 2em auto; }
td, th { padding: 0.2em 1em 0.2em 0; text-align: left; vertical-align: top; }
img { max-width: 100%; }
</style>
<h1>$title</h1>
<pre>$estimate</pre>
<p>$errors</p>
$pictures
<h2>The worst labels</h2>
<table><tr><th>row<th>given<th>suggested<th>probability to be right<th></tr>
$rows
</table></html>
""")


class Samples(NamedTuple):
    """Holds training inputs and labels, class names, and the samples to show."""

    x: np.ndarray
    labels: np.ndarray
    names: list[str]
    shown: np.ndarray  # Images or texts, or vectors, which are not shown.


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("data", type=Path, help="CSV file of texts, or NPZ file")
    parser.add_argument("--text", default="text", help="column of the texts")
    parser.add_argument("--label", default="label", help="column of the labels")
    parser.add_argument("--features", type=int, default=300, help="numbers per text")
    parser.add_argument("--output", type=Path, default=Path("cleaned"))
    parser.add_argument("--tau", type=float, default=1.5, help="clipping threshold")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=RATES, metavar="RATE"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load(arguments):
    if arguments.data.suffix == ".csv":
        texts, labels = text_intents.read(arguments.data, arguments)
        names, ids = np.unique(labels, return_inverse=True)
        x = text_intents.make_features(texts, texts[:1], arguments.features)[0]
        return Samples(x, ids, names.tolist(), np.array(texts, object))
    try:
        # Without pickles, which can execute anything.
        with np.load(arguments.data, allow_pickle=False) as arrays:
            x, labels = arrays["x_train"], arrays["y_train"]
            names, ids = np.unique(labels, return_inverse=True)
            if "class_names" in arrays:
                names = arrays["class_names"][names]
    except Exception as error:  # A damaged file can cause any error.
        raise SystemExit(f"Cannot read {arguments.data}: {error}") from error
    check_arrays(x, labels, arguments.data)
    inputs = x.astype("float32")
    if x.dtype.kind in "iu":
        inputs /= max(1, x.max())
    return Samples(inputs, ids, [str(name) for name in names], x)


def check_arrays(x, labels, path):
    """Raises an error for anything but numbers with a label for each sample."""
    is_one_each = labels.ndim == 1 and x.shape[:1] == labels.shape
    if x.ndim < 2 or not x.size or not is_one_each or x.dtype.kind not in "biuf":
        raise SystemExit(
            "Expected numbers as `x_train`, of shape (samples, ...), and a label for "
            f"each sample as `y_train` in {path}, at least one. Received: `x_train` of "
            f"dtype {x.dtype} and shape {x.shape}, `y_train` of shape {labels.shape}"
        )
    missing = text_intents.find_missing(labels)
    if missing:
        raise SystemExit(
            f"Expected a label for each sample as `y_train` in {path}. Received: none "
            f"for {len(missing)} samples: {missing[:10]}, counted from 0"
        )


def build_model(shape, classes):
    hidden = keras.layers.Dense(256, activation="relu")
    layers = [keras.Input(shape), keras.layers.Flatten(), hidden]
    return keras.Sequential([*layers, keras.layers.Dense(classes)])


def make_optimizer(steps, learning_rate):
    decay = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.SGD(decay, momentum=0.9)


def predict_held_out(samples, arguments):
    """Returns held-out logits, with the best learning rate of a search."""
    build = functools.partial(build_model, samples.x.shape[1:], len(samples.names))
    shared = {"epochs": arguments.epochs, "seed": arguments.seed}
    found = tuning.search_tau(
        build,
        samples.x,
        samples.labels,
        taus=[arguments.tau],
        learning_rates=arguments.learning_rates,
        optimizer=make_optimizer,
        storage=f"sqlite:///{arguments.output}/search.db",
        study_name="learning rate",
        **shared,
    )
    print(found)
    rate = found.best_learning_rate
    return cleaning.held_out_logits(
        build,
        samples.x,
        samples.labels,
        folds=arguments.folds,
        tau=arguments.tau,
        optimizer=functools.partial(make_optimizer, learning_rate=rate),
        folder=arguments.output / "held_out_logits",
        **shared,
    )


def embedded(figure):
    """Returns a picture as HTML."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    encoded = base64.b64encode(png.getvalue()).decode()
    return f'<p><img src="data:image/png;base64,{encoded}" alt=""></p>'


def make_report(samples, estimate, errors, title):
    """Returns a page without other files. All data are escaped."""
    are_texts = samples.shown.dtype == object
    figures = [estimate.plot(class_names=samples.names).figure]
    if samples.shown.ndim > 2:
        figures.append(errors.plot(samples.shown, class_names=samples.names))
    rows = []
    for index in errors.indices[:LISTED]:
        cells = [
            index,
            samples.names[samples.labels[index]],
            samples.names[errors.suggested[index]],
            f"{errors.quality[index]:.3f}",
            samples.shown[index] if are_texts else "",
        ]
        escaped = "<td>".join(html.escape(str(cell)) for cell in cells)
        rows.append(f"<tr><td>{escaped}</tr>")
    return PAGE.substitute(
        title=html.escape(title),
        estimate=html.escape(str(estimate)),
        errors=html.escape(str(errors)),
        pictures="\n".join(map(embedded, figures)),
        rows="\n".join(rows),
    )


def write_cleaned(samples, keep, arguments):
    names = np.array(samples.names)
    if samples.shown.dtype == object:
        path = arguments.output / "cleaned.csv"
        pairs = zip(samples.shown[keep], names[samples.labels[keep]], strict=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([(arguments.text, arguments.label), *pairs])
    else:
        path = arguments.output / "cleaned.npz"
        kept = {"x_train": samples.shown[keep], "y_train": samples.labels[keep]}
        np.savez(path, class_names=names, **kept)
    return path


def main():
    arguments = parse_arguments()
    samples = load(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    logits = predict_held_out(samples, arguments)
    estimate = cleaning.estimate_noise(samples.labels, logits)
    errors = cleaning.find_label_errors(samples.labels, logits)
    print(f"\n{estimate}\n\n{errors}")
    errors.to_csv(arguments.output / "errors.csv", samples.names)
    report = make_report(samples, estimate, errors, f"Labels of {arguments.data.name}")
    (arguments.output / "report.html").write_text(report, encoding="utf-8")
    path = write_cleaned(samples, errors.keep, arguments)
    print(f"\nThe report is in {arguments.output / 'report.html'}, the rest in {path}.")


if __name__ == "__main__":
    main()
