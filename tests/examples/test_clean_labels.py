"""The example that cleans the labels of the user's own file."""

import csv
import re

import numpy as np
import pytest

from keras_logitclip import noise

pytest.importorskip("cleanlab")
pytest.importorskip("sklearn")
matplotlib = pytest.importorskip("matplotlib")

pytestmark = pytest.mark.gradients

CLEAN = np.arange(240) % 3
NOISY = noise.symmetric(CLEAN, 0.2, 3, exact=True, seed=0)
# What a page must not contain as it is.
NAMES = np.array(["<script>alert(1)</script>", "b & b", "c"])
SHORT = ["--epochs", "4", "--folds", "3", "--learning-rates", "0.1", "0.3"]


@pytest.fixture(autouse=True)
def no_window():
    matplotlib.use("Agg")
    yield
    matplotlib.pyplot.close("all")


def some_images():
    images = np.random.default_rng(0).integers(0, 60, (240, 6, 6)).astype("uint8")
    for image, label in zip(images, CLEAN, strict=True):
        image[2 * label : 2 * label + 2] += 180
    return images


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_images(run_here, tmp_path):
    images = some_images()
    arrays = {"x_train": images, "y_train": NOISY.labels, "class_names": NAMES}
    np.savez(tmp_path / "images.npz", **arrays)
    printed = run_here("clean_labels.py", ["images.npz", *SHORT])
    assert re.search(r"\d+\.\d% of the labels are wrong", printed)
    folder = tmp_path / "cleaned"
    rows = read_csv(folder / "errors.csv")
    found = np.array([int(row["index"]) for row in rows])
    assert len(found) > 30
    assert NOISY.flipped[found].mean() > 0.8
    assert rows[0]["given"] == NAMES[NOISY.labels[found[0]]]
    with np.load(folder / "cleaned.npz") as cleaned:
        kept = np.setdiff1d(np.arange(240), found)
        np.testing.assert_array_equal(cleaned["x_train"], images[kept])
        np.testing.assert_array_equal(cleaned["y_train"], NOISY.labels[kept])
        np.testing.assert_array_equal(cleaned["class_names"], NAMES)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"(src|href)=.?http", page)


@pytest.mark.once
def test_texts(run_here, tmp_path):
    texts = [f"{'abc'[label]}{label} word {i % 5} <b>" for i, label in enumerate(CLEAN)]
    with (tmp_path / "train.csv").open("w", encoding="utf-8", newline="") as file:
        pairs = zip(texts, NAMES[NOISY.labels], strict=True)
        csv.writer(file).writerows([("text", "intent"), *pairs])
    options = ["train.csv", "--label", "intent", "--features", "5", *SHORT]
    run_here("clean_labels.py", options)
    kept = read_csv(tmp_path / "cleaned" / "cleaned.csv")
    found = read_csv(tmp_path / "cleaned" / "errors.csv")
    assert len(kept) + len(found) == 240
    assert {row["text"] for row in kept} <= {*texts}
    page = (tmp_path / "cleaned" / "report.html").read_text(encoding="utf-8")
    assert "word 1 &lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script" not in page


BAD_FILES = {
    "pickle": ({"x_train": np.array([print], object), "y_train": [0]}, "allow_pickle"),
    "arrays": ({"x": [1.0], "y_train": [0]}, "x_train"),
    "names": ({"x_train": [1.0], "y_train": [3], "class_names": ["a"]}, "index 3"),
}


@pytest.mark.once
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name, run_here, tmp_path):
    arrays, message = BAD_FILES[name]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(SystemExit, match=f"Cannot read bad.npz: .*{message}"):
        run_here("clean_labels.py", ["bad.npz"])
    assert not (tmp_path / "cleaned").exists()


BAD_ARRAYS = {
    "empty": (np.zeros((0, 4)), [], r"at least one. .*\(0, 4\), .* shape \(0,\)"),
    "lengths": (np.zeros((3, 4)), [0, 1], r"shape \(3, 4\), `y_train` of shape \(2,\)"),
    "one-hot": (np.zeros((3, 4)), np.eye(3), r"`y_train` of shape \(3, 3\)"),
    "texts": (np.array([["a"], ["b"]]), [0, 1], "`x_train` of dtype <U1"),
    "nan": (np.zeros((3, 4)), [0, np.nan, 1], r"none for 1 samples: \[1\]"),
    "no-name": (np.zeros((3, 4)), ["a", "b", ""], r"none for 1 samples: \[2\]"),
}


@pytest.mark.once
@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(name, run_here, tmp_path):
    x, labels, message = BAD_ARRAYS[name]
    np.savez(tmp_path / "bad.npz", x_train=x, y_train=labels)
    with pytest.raises(SystemExit, match=f"bad.npz.*{message}"):
        run_here("clean_labels.py", ["bad.npz"])
    assert not (tmp_path / "cleaned").exists()


@pytest.mark.once
@pytest.mark.parametrize("text", ["one word", "a b"])
def test_few_words(text, run_here, tmp_path):
    (tmp_path / "few.csv").write_text(f"text,label\n{text},a\n{text},b\n")
    with pytest.raises(SystemExit, match="Expected texts with at least 300 words and"):
        run_here("clean_labels.py", ["few.csv"])
    assert not (tmp_path / "cleaned").exists()


@pytest.mark.once
def test_a_table_in_another_encoding(run_here, tmp_path):
    (tmp_path / "bad.csv").write_bytes("text,label\ncafé,a\n".encode("latin1"))
    with pytest.raises(SystemExit, match="Cannot read bad.csv as CSV in UTF-8: .*0xe9"):
        run_here("clean_labels.py", ["bad.csv"])
