"""The examples that read a user's own texts and images."""

import csv
import io
import re
import textwrap

import keras
import numpy as np
import pytest
from PIL import Image

from keras_logitclip import study
from keras_logitclip.study._data import load_data
from tests.running import BACKEND
from tests.subprocesses import ROOT

pytestmark = pytest.mark.gradients

# Two words of each of six classes.
WORDS = ["tea pot", "train late", "card lost", "rain cold", "key door", "cat milk"]
HEADS = ["--epochs", "2", "--learning-rates", "0.01", "0.1"]


def write_texts(path, of_each=10):
    """Writes sentences of the words of their classes and of others."""
    rng = np.random.default_rng(0)
    others = ["the", "my", "where", "is", "please", "help", "today", "again"]
    rows = [
        (" ".join([words, *rng.permutation(others)[:3]]), words.upper())
        for words in WORDS * of_each
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("sentence", "topic"), *rows])


def read_table(printed):
    """Returns the rows of a table by their first cells, each a dictionary."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    names, _, *rows = ([c.strip() for c in line[1:-1].split("|")] for line in lines)
    return {
        row[0]: dict(zip(names[1:], map(float, row[1:]), strict=True)) for row in rows
    }


def check_table(printed, names):
    """Checks that the chosen rates are those that predict held-out labels best."""
    table = read_table(printed)
    assert [*table] == ["cross-entropy", "LogitClip, tau=1"]
    for loss, row in table.items():
        assert [*row] == ["learning rate", "held-out labels", *names]
        tried = re.findall(rf"{loss}, learning rate (.*): predicts (.*)% of", printed)
        shares = {float(rate): float(share) for rate, share in tried}
        assert [*shares] == [0.01, 0.1]
        assert row["held-out labels"] == shares[row["learning rate"]]
        assert row["held-out labels"] == max(shares.values())
        assert all(0 <= row[name] <= 100 for name in names)
    return table


TEXTS = ["--text", "sentence", "--label", "topic", "--features", "12", *HEADS]


def test_text_intents_trains_on_labels_as_they_are(run_here, tmp_path):
    write_texts(tmp_path / "train.csv", of_each=30)
    printed = run_here("text_intents.py", ["train.csv", *TEXTS, "--epochs", "10"])
    assert "144 texts of 6 classes to train on" in printed
    table = check_table(printed, ["test labels"])
    assert min(row["test labels"] for row in table.values()) > 80
    assert "The labels are unchanged" in printed


def test_text_intents_makes_labels_wrong(run_here, tmp_path):
    write_texts(tmp_path / "train.csv")
    write_texts(tmp_path / "test.csv", of_each=2)
    options = ["train.csv", "--test", "test.csv", "--noise", "0.4", *TEXTS]
    printed = run_here("text_intents.py", options)
    assert "60 texts of 6 classes to train on" in printed
    (wrong,) = set(re.findall(r"(\d+) wrong labels", printed))
    assert 15 < int(wrong) < 33
    check_table(printed, ["test labels", f"{wrong} wrong labels"])
    assert "held-out labels are as noisy as" in printed


@pytest.mark.once
@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("sentence,topic\na,\n", "", "Expected a column 'topic' in train.csv without"),
        ("sentence,topic\na,b\na, \na\na,nan\n", "", r"in 3 of them: \[1, 2, 3\]"),
        ("text,topic\na,b\n", "", r"column 'sentence'.*\['text', 'topic'\]"),
        ("", "", "Received: 0 rows"),
        (
            "sentence,topic\n" + 5 * "a,b\n" + "a,c\n",
            "",
            r"Expected at least five .*\['c'\]",
        ),
        (
            "sentence,topic\na,b\n",
            "sentence,topic\na,c\n",
            r"Expected the test labels .*\['c'\]",
        ),
    ],
)
def test_text_intents_refuses_tables(train, test, message, run_here, tmp_path):
    (tmp_path / "train.csv").write_text(train)
    (tmp_path / "test.csv").write_text(test)
    options = ["train.csv", *(["--test", "test.csv"] if test else []), *TEXTS]
    with pytest.raises(SystemExit, match=message):
        run_here("text_intents.py", options)


COLOURS = ["blue", "green", "red"]
IMAGES = ["--network", "MobileNetV3Small", "--weights", "none", "--size", "32", *HEADS]


def write_images(folder, of_each):
    rng = np.random.default_rng(0)
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for number in range(of_each):
            pixels = rng.integers(0, 256, (32, 32, 3), "uint8")
            pixels[..., COLOURS[::-1].index(colour)] = 255
            Image.fromarray(pixels).save(folder / colour / f"{number}.png")


def small_network(input_shape, **options):
    """Replaces a network, because JAX takes half a minute for its initial weights."""
    convolution = keras.layers.Conv2D(576, 3)
    pooling = keras.layers.GlobalAveragePooling2D()
    return keras.Sequential([keras.Input(input_shape), convolution, pooling])


# With the example's own lines of data.
STUDY = """
epochs = 1
model.name = "mlp"
optimizer = { name = "sgd", learning_rate = 0.1 }
noise = [{ kind = "clean" }]
methods = [{ losses = ["CE"], taus = [1.0] }]
"""


def test_pretrained_features_trains_and_writes_a_file(run_here, tmp_path, monkeypatch):
    if BACKEND == "jax":
        monkeypatch.setattr(keras.applications, "MobileNetV3Small", small_network)
    write_images(tmp_path / "train", 12)
    write_images(tmp_path / "test", 6)
    options = ["train", "--test", "test", *IMAGES]
    printed = run_here("pretrained_features.py", options)
    check_table(printed, ["test labels"])
    with np.load(tmp_path / "features.npz") as arrays:
        assert arrays["class_names"].tolist() == COLOURS
        assert arrays["x_train"].shape == (36, 576)
        assert arrays["x_test"].shape == (18, 576)
        np.testing.assert_array_equal(arrays["y_train"], np.repeat([0, 1, 2], 12))
        np.testing.assert_array_equal(arrays["y_test"], np.repeat([0, 1, 2], 6))
        assert np.isfinite(arrays["x_train"]).all()
        assert np.ptp(arrays["x_train"], axis=0).max() > 0
    text = (ROOT / "examples/pretrained_features.py").read_text()
    lines = textwrap.dedent(re.search(r" +\[data\]\n.*?\n\n", text, re.DOTALL)[0])
    (tmp_path / "study.toml").write_text(STUDY + lines)
    data = load_data(study.load(tmp_path / "study.toml"), tmp_path)
    assert (data.num_classes, len(data.x_train), len(data.x_test)) == (3, 36, 18)


def damaged(folder, name):
    """Writes a file that is no image, whatever its name says."""
    path = folder / "train" / "red" / name
    whole = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(whole, "EPS" if name == "eps.jpg" else "PNG")
    contents = {"text.png": b"no image", "empty.gif": b"", "eps.jpg": whole.getvalue()}
    path.write_bytes(contents.get(name, whole.getvalue()[:60]))


@pytest.mark.once
@pytest.mark.parametrize("name", ["text.png", "empty.gif", "eps.jpg", "cut.png"])
def test_pretrained_features_names_damaged_images(name, run_here, tmp_path):
    write_images(tmp_path / "train", 1)
    damaged(tmp_path, name)
    with pytest.raises(SystemExit, match=f"Cannot read the image .*red/{name}'"):
        run_here("pretrained_features.py", ["train", *IMAGES])


@pytest.mark.once
def test_pretrained_features_refuses_folders(run_here, tmp_path):
    write_images(tmp_path / "train", 4)
    (tmp_path / "test" / "purple").mkdir(parents=True)
    for options, message in (
        (
            ["train"],
            r"Expected at least five samples of each class.*\['blue', 'green', 'red'\]",
        ),
        (["train", "--test", "test"], r"to be among \['blue', .* \['purple'\]"),
        (["test"], "no images in the folders of test"),
    ):
        with pytest.raises(SystemExit, match=message):
            run_here("pretrained_features.py", [*options, *IMAGES])
