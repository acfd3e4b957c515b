"""Study files, their data, and studies as a whole."""

import datetime
import errno
import os
import pickle
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from keras_logitclip import losses
from keras_logitclip import noise
from keras_logitclip import study
from keras_logitclip.__main__ import main
from keras_logitclip._jobs import queue
from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.study import _run
from keras_logitclip.study import _training
from keras_logitclip.study._config import Cell
from keras_logitclip.study._data import load_data
from keras_logitclip.study._data import make_noise
from keras_logitclip.study._losses import l1_weight
from keras_logitclip.study._losses import make_loss
from tests.damages import MIB
from tests.damages import damages
from tests.damages import little
from tests.damages import reproducibly
from tests.study_files import BACKEND
from tests.study_files import TRAINED_ON
from tests.study_files import load
from tests.study_files import own_data
from tests.study_files import own_directory  # noqa: F401
from tests.study_files import own_model
from tests.study_files import run
from tests.study_files import without_times
from tests.study_files import write_study

pytestmark = pytest.mark.once

# Study files.


def test_defaults():
    settings = load().settings
    assert (settings["validation_split"], settings["seeds"]) == (0.1, 1)
    assert settings["data"]["standardize"] is False
    assert settings["data"]["train_samples"] is None
    assert settings["optimizer"]["schedule"] == "constant"
    assert settings["optimizer"]["momentum"] == 0.9
    assert settings["noise"] == [
        {"kind": "symmetric", "rate": 0.4, "exact": False, "include_true_class": False}
    ]
    (methods,) = settings["methods"]
    assert methods["plain"] is True
    assert methods["taus"] == methods["value_limits"] == []


def test_what_is_left_out_of_a_study_file():
    path = write_study(Path("."), {})
    assert study.load(path).settings["backend"] == "tensorflow"


def test_cells_are_in_order_and_each_is_there_once():
    loaded = load(
        seeds=2,
        noise=[{"kind": "clean"}, {"kind": "pair_flip", "rate": 0.25}],
        methods=[
            {"losses": ["ce", "fl"], "taus": [1, 0.5]},
            {"losses": ["CE"], "taus": [1.0], "value_limits": [2], "plain": False},
            {"losses": ["CE"], "norm_penalties": [0.1]},
        ],
    )
    methods = [
        ("CE", "plain", None),
        ("CE", "tau", 1.0),
        ("CE", "tau", 0.5),
        ("Focal", "plain", None),
        ("Focal", "tau", 1.0),
        ("Focal", "tau", 0.5),
        ("CE", "value_limit", 2.0),
        ("CE", "norm_penalty", 0.1),
    ]
    assert loaded.cells == [
        (noise_name, *method, seed)
        for seed in (0, 1)
        for noise_name in ("clean", "pair-flip 0.25")
        for method in methods
    ]
    assert (loaded.name, loaded.folder) == ("small", Path("."))


def test_names_of_noises():
    kinds = [
        {"kind": "clean"},
        {"kind": "symmetric", "rate": 0.2},
        {"kind": "symmetric", "rate": 0.5, "exact": True},
        {"kind": "asymmetric", "rate": 1, "mapping": [1, 0, 2, 3]},
        {"kind": "instance_dependent", "rate": 0.45},
        {"kind": "human", "file": "CIFAR-10_human.pt", "labels": "worse"},
    ]
    assert list(load(noise=kinds).noises) == [
        "clean",
        "symmetric 0.2",
        "symmetric 0.5",
        "asymmetric 1",
        "instance-dependent 0.45",
        "human worse",
    ]


def test_mappings_of_the_built_in_data():
    kind = {"kind": "asymmetric", "rate": 0.4}
    loaded = load(data={"name": "cifar10"}, noise=[kind])
    (settings,) = loaded.noises.values()
    assert settings["mapping"] == list(noise.CIFAR10_CONFUSIONS)


STEPS = {"schedule": "steps"}
BAD_SETTINGS = {
    "unknown-key": ({"epoch": 3}, "no other keys in the study.*Received: epoch$"),
    "missing-key": ({"epochs": None}, "`epochs` in the study. Received: none"),
    "type": ({"epochs": 2.5}, "`epochs` in the study to be of type int.*2.5"),
    "bool": ({"seeds": True}, "`seeds` in the study to be of type int.*True"),
    "epochs-0": ({"epochs": 0}, "`epochs` to be above zero. Received: 0"),
    "batch-size": ({"batch_size": -1}, "`batch_size` to be above zero. Received: -1"),
    "split": ({"validation_split": 1}, "`validation_split` between 0 and 1.*1.0"),
    "backend": ({"backend": "numpy"}, "one of tensorflow, jax, torch.*'numpy'"),
    "data": ({"data": {"name": "svhn"}}, "digits, mnist, .*module:function.*'svhn'"),
    "no-table": ({"data": "mnist"}, "`data` in the study to be of type dict.*'mnist'"),
    "data-key": ({"data": {"size": 3}}, r"keys in \[data\].*train_samples.*: size$"),
    "samples": ({"data": {"test_samples": 0}}, "`test_samples` to be above zero"),
    "model": ({"model": {"name": "vgg"}}, r"`name` in \[model\].*wrn-40-2.*'vgg'"),
    "model-name": ({"model": {"name": None}}, r"`name` in \[model\] to be a string"),
    "model-date": (
        {"model": {"since": datetime.date(2020, 1, 1)}},
        "`model` to have finite numbers.*2020",
    ),
    "model-inf": ({"model": {"width": np.inf}}, "`model` to have finite.*inf"),
    "optimizer": ({"optimizer": {"name": "sdg"}}, r"another \[optimizer\].*sdg"),
    "argument": ({"optimizer": {"moment": 1.0}}, r"another \[optimizer\].*moment"),
    "rate": ({"optimizer": {"learning_rate": 0}}, "`learning_rate` to be above zero"),
    "rate-inf": ({"optimizer": {"learning_rate": np.inf}}, "above zero. Received: inf"),
    "schedule": (
        {"optimizer": {"schedule": "step"}},
        "constant, steps, cosine.*'step'",
    ),
    "no-boundaries": ({"optimizer": STEPS}, r"`boundaries`.*Received: \[\]"),
    "boundaries": (
        {"optimizer": {"boundaries": [0.5]}},
        r"`boundaries`.*only then. Received: \[0.5\], schedule 'constant'",
    ),
    "shrinking": (
        {"optimizer": {**STEPS, "boundaries": [0.7, 0.4]}},
        r"growing shares.*Received: \[0.7, 0.4\]",
    ),
    "epochs-as-boundaries": (
        {"optimizer": {**STEPS, "boundaries": [80, 120]}},
        r"growing shares of the training.*Received: \[80, 120\]",
    ),
    "no-noise": ({"noise": []}, r"at least one section \[\[noise\]\]"),
    "one-noise": ({"noise": {"kind": "clean"}}, "`noise` in the study to be of type"),
    "kind": ({"noise": [{"kind": "uniform"}]}, "clean, symmetric, .*'uniform'"),
    "kind-list": ({"noise": [{"kind": ["clean"]}]}, r"Received: \['clean'\]"),
    "no-kind": ({"noise": [{"rate": 0.5}]}, "`kind` in .* Received: None"),
    "no-section": ({"noise": ["clean"]}, "to be a table. Received: 'clean'"),
    "no-rate": ({"noise": [{"kind": "symmetric"}]}, "`rate` in .*symmetric"),
    "rate-of-clean": ({"noise": [{"kind": "clean", "rate": 0.1}]}, "Received: rate"),
    "rate-above-1": (
        {"noise": [{"kind": "pair_flip", "rate": 2}]},
        "`rate` in .* above 0 and at most 1. Received: 2.0",
    ),
    "mapping": (
        {"noise": [{"kind": "asymmetric", "rate": 0.4}]},
        "`mapping` in .*the data are your own",
    ),
    "scale": (
        {"noise": [{"kind": "instance_dependent", "rate": 0.4, "scale": -1}]},
        "`scale` to be above zero. Received: -1.0",
    ),
    "noise-twice": (
        {"noise": 2 * [{"kind": "symmetric", "rate": 0.5}]},
        "each noise once. Received: symmetric 0.5, symmetric 0.5",
    ),
    "no-methods": ({"methods": []}, r"at least one section \[\[methods\]\]"),
    "no-losses": ({"methods": [{"losses": []}]}, r"\[\[methods\]\] with `losses`"),
    "loss": ({"methods": [{"losses": ["CEE"]}]}, "'GCE', .*Received: name='CEE'"),
    "no-method": (
        {"methods": [{"losses": ["CE"], "plain": False}]},
        "`plain = true` or values of `taus`",
    ),
    "tau": ({"methods": [{"losses": ["CE"], "taus": [0]}]}, "`taus` to be above zero"),
    "tau-text": ({"methods": [{"losses": ["CE"], "taus": ["1"]}]}, "type float.*'1'"),
    "taus": ({"methods": [{"losses": ["CE"], "taus": 1.0}]}, "of type list.*1.0"),
}


@pytest.mark.parametrize(
    ("changes", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=f"^Cannot use small.toml: .*{message}"):
        load(**changes)


def test_files_that_are_no_study():
    Path("broken.toml").write_text("epochs = [")
    with pytest.raises(ValueError, match="Cannot use broken.toml: Invalid value"):
        study.load("broken.toml")
    with pytest.raises(ValueError, match="Cannot use a b.toml: .*file name of letters"):
        load(name="a b.toml")
    with pytest.raises(OSError, match="missing.toml"):
        study.load("missing.toml")
    with pytest.raises(OSError, match="Is a directory"):
        study.load(".")


@given(damaged=damages())
@reproducibly
def test_a_damaged_study_file(damaged):
    path = write_study(Path("."), {})
    path.write_bytes(damaged(path.read_bytes()))
    with little():
        try:
            loaded = study.load(path)
        except ValueError as error:
            message = str(error)
        else:
            assert loaded.cells
            return
    assert message.startswith("Cannot use small.toml: ")


ENDLESS = {
    "arrays": "x = " + 10**4 * "[" + 10**4 * "]",
    "tables": "[model]\nname = 'mlp'\n" + ".".join(1100 * ["x"]) + " = 1",
    "optimizer": "[optimizer]\nname = 'sgd'\n" + ".".join(1100 * ["x"]) + " = 1",
    "epochs": f"epochs = {10**400}",
    "rate": f"[optimizer]\nname = 'sgd'\nlearning_rate = {10**400}",
    "digits": f"epochs = {10**4 * '9'}",
}


@pytest.mark.parametrize("contents", ENDLESS.values(), ids=ENDLESS)
def test_study_files_with_endless_values(contents):
    path = write_study(Path("."), {})
    lines = path.read_text().splitlines()
    section = contents.splitlines()[0]
    start = lines.index(section) if section in lines else 0
    end = start + 3 if start else 1
    path.write_text("\n".join([*lines[:start], contents, *lines[end:]]))
    # Python's parser remembers every table on the way to a value.
    with little(64 * MIB), pytest.raises(ValueError, match="^Cannot use small.toml: "):
        study.load(path)


# Data and noise.


def test_own_data():
    data = load_data(load(), None)
    assert data.x_train.dtype == "uint8"
    assert (data.x_train.shape, data.x_test.shape) == ((240, 6), (80, 6))
    assert data.num_classes == 4
    assert (data.x_train * data.scale).max() == pytest.approx(1, rel=1e-6)
    assert data.offset == 0


def test_grey_images_get_a_channel():
    data = load_data(load(data={"name": "study_samples:images"}), None)
    assert (data.x_train.shape, data.x_test.shape) == ((240, 2, 3, 1), (80, 2, 3, 1))


def test_a_subset_is_the_same_one_for_all_seeds():
    every = load_data(load(), None)
    data = load_data(load(data={"train_samples": 100, "test_samples": 50}), None)
    assert (data.x_train.shape, data.x_test.shape) == ((100, 6), (50, 6))
    assert len(set(data.rows)) == 100
    np.testing.assert_array_equal(data.x_train, every.x_train[data.rows])
    np.testing.assert_array_equal(data.y_train, every.y_train[data.rows])
    np.testing.assert_array_equal(data.y_all, every.y_train)
    again = load_data(load(data={"train_samples": 100, "test_samples": 50}), None)
    np.testing.assert_array_equal(data.x_test, again.x_test)


@pytest.mark.parametrize("name", ["load", "images"])
def test_standardized(name):
    settings = {"name": f"study_samples:{name}", "standardize": True}
    data = load_data(load(data=settings), None)
    samples = data.x_train * data.scale + data.offset
    axes = 0 if name == "load" else (0, 1, 2)
    assert samples.dtype == "float32"
    np.testing.assert_allclose(samples.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(samples.std(axes), 1, rtol=1e-5)


NOISES = {
    "clean": ({}, lambda data: noise.NoisyLabels(data.y_train, data.y_train, 4)),
    "symmetric": (
        {"rate": 0.5, "exact": True},
        lambda data: noise.symmetric(data.y_train, 0.5, 4, exact=True, seed=3),
    ),
    "pair_flip": (
        {"rate": 0.3},
        lambda data: noise.pair_flip(data.y_train, 0.3, 4, seed=3),
    ),
    "asymmetric": (
        {"rate": 0.3, "mapping": [1, 0, 2, 2]},
        lambda data: noise.asymmetric(data.y_train, 0.3, [1, 0, 2, 2], seed=3),
    ),
    "instance_dependent": (
        {"rate": 0.3},
        lambda data: noise.instance_dependent(
            data.x_train / data.x_train.max(), data.y_train, 0.3, 4, scale=1.0, seed=3
        ),
    ),
}


@pytest.mark.parametrize("kind", NOISES)
def test_noise(kind):
    settings, expected = NOISES[kind]
    loaded = load(noise=[{"kind": kind, **settings}])
    (name,) = loaded.noises
    data = load_data(loaded, None)
    noisy = make_noise(loaded, data, name, 3, None)
    expected = expected(data)
    np.testing.assert_array_equal(noisy.clean, data.y_train)
    # Rounding decides where instance-dependent noise is drawn with float32 features.
    assert np.mean(noisy.labels != expected.labels) <= 0.01
    assert noisy.rate == pytest.approx(expected.rate, abs=0.01)
    assert (noisy.rate > 0) == (kind != "clean")


HUMAN = {"kind": "human", "file": "human.pt", "labels": "worse"}


def write_human_labels(clean, **others):
    contents = {"clean_label": clean, "worse_label": clean, **others}
    Path("human.pt").write_bytes(pickle.dumps(contents, 2))


def use_ten_classes(monkeypatch):
    """Gives the data of the study file the ten classes that CIFAR-10N has."""
    module = sys.modules["study_samples"]
    x_train, _, x_test, y_test = module.load()
    clean = np.arange(len(x_train)) % 10
    monkeypatch.setattr(module, "load", lambda: (x_train, clean, x_test, y_test))
    return clean


def test_human_labels_of_a_subset(monkeypatch):
    loaded = load(data={"train_samples": 50}, noise=[HUMAN])
    load_data(loaded, None)
    clean = use_ten_classes(monkeypatch)
    worse = np.where(np.arange(len(clean)) % 3 == 0, (clean + 1) % 10, clean)
    write_human_labels(clean, worse_label=worse)
    data = load_data(loaded, None)
    noisy = make_noise(loaded, data, "human worse", 0, None)
    np.testing.assert_array_equal(noisy.labels, worse[data.rows])
    np.testing.assert_array_equal(noisy.clean, clean[data.rows])


def noise_of(**settings):
    return {"noise": [settings]}


BAD_CELLS = {
    "module": ({"data": {"name": "nowhere:load"}}, "'nowhere:load': No module named"),
    "function": (own_data("lod"), "'study_samples:lod': .*no attribute 'lod'"),
    "nothing": (own_data("nothing"), r"to return `x_train`.*Received: .*shapes \[\]"),
    "lengths": (own_data("other_lengths"), r"a label for each.*\(239, 6\), \(240,\)"),
    "shapes": (own_data("other_shapes"), r"one shape.*\(240, 6\).*\(80, 5\)"),
    "one-hot": (own_data("one_hot"), r"class ids.*float64 of shape \(240, 4\)"),
    "negative": (own_data("negative"), "class ids, integers from 0"),
    "text": (own_data("text"), "samples of .* to be numbers.*<U3"),
    "too-many": ({"data": {"train_samples": 241}}, "at most 240.*Received: 241"),
    "mapping": (
        noise_of(kind="asymmetric", rate=0.5, mapping=[1, 2, 3, 4, 0]),
        "`mapping` in .*the 4 classes of the data. Received: 5",
    ),
    "short-mapping": (
        noise_of(kind="asymmetric", rate=0.5, mapping=[1, 0]),
        r"labels.*\[0, 2\)|at most 1|num_classes",
    ),
    "rare": ({"validation_split": 0.001}, "which holds out 0 of the "),
    "width": ({"model": {"width": 0}}, "`width`: expected an integer of at least 1"),
    "argument": ({"model": {"units": 3}}, "model 'mlp' has: `width`.*units=3"),
    "no-model": (own_model("no_model"), "not compiled. Received: <class 'tuple'>"),
    "compiled": (own_model("compiled_model"), "not compiled. Received: a compiled one"),
    "outputs": (own_model("narrow_model"), r"\(None, 4\).*Received: \(None, 3\)"),
}


@pytest.mark.gradients
@pytest.mark.parametrize(("changes", "message"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_what_only_the_data_show(changes, message):
    loaded = load(**changes)
    with pytest.raises(ValueError, match=message):
        run(loaded)
    assert not Path("results").exists()


@pytest.mark.gradients
def test_human_labels_of_other_images():
    loaded = load(noise=[HUMAN])
    with pytest.raises(FileNotFoundError, match="file of CIFAR-10N.*human.pt"):
        run(loaded)
    write_human_labels(np.arange(30) % 10)
    with pytest.raises(ValueError, match="all 30 images.*Received: 240 labels"):
        run(loaded)


def test_human_labels_of_other_classes(monkeypatch):
    loaded = load(noise=[HUMAN])
    y_train = load_data(loaded, None).y_train
    write_human_labels(y_train)
    with pytest.raises(ValueError, match="'worse' .*4 classes.*Received: 10"):
        make_noise(loaded, load_data(loaded, None), "human worse", 0, None)


# Losses.


def test_losses_of_the_methods():
    plain = make_loss(Cell("", "GCE", "plain", None, 0), 4)
    assert isinstance(plain, losses.GeneralizedCrossEntropy)
    assert plain.q == 0.7
    clipped = make_loss(Cell("", "CE", "tau", 0.5, 0), 4)
    assert isinstance(clipped, losses.LogitClipLoss)
    assert clipped.tau == 0.5
    by_value = make_loss(Cell("", "CE", "value_limit", 2.0, 0), 4)
    assert isinstance(by_value, losses.LogitValueClip)
    assert by_value.limit == 2.0
    penalized = make_loss(Cell("", "CE", "norm_penalty", 0.1, 0), 4)
    assert isinstance(penalized, losses.NormPenalty)
    assert penalized.weight == 0.1


@pytest.mark.parametrize("name", PRESETS)
def test_l1_weights(name):
    few, many = PRESETS[name].l1
    cell = Cell("", name, "plain", None, 0)
    assert (l1_weight(cell, 10), l1_weight(cell, 100)) == (few, many)


@pytest.mark.parametrize("batch_size", [3, 1000])
def test_what_is_measured(batch_size, monkeypatch):
    monkeypatch.setattr(_training, "_PREDICT_BATCH", batch_size)
    logits = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    labels = np.random.default_rng(1).integers(0, 4, (20, 2))

    class Model:
        def predict_on_batch(self, positions):
            return logits[positions]

    test, held_out, wrong = np.arange(13, 20), np.arange(3, 7), np.arange(7, 13)
    recorder = _training.Recorder(
        {"test": test, "held_out": held_out, "wrong": wrong},
        {
            "test": labels[test, 0],
            "held_out": labels[held_out, 0],
            "memorized": labels[wrong, 0],
            "recovered": labels[wrong, 1],
        },
        epochs := {},
    )
    recorder.set_model(Model())
    recorder.on_epoch_begin(0)
    recorder.on_epoch_end(0, {"loss": np.float32("nan")})
    hits = logits.argmax(-1)[:, None] == labels
    norms = np.sqrt(np.square(logits[test], dtype="float64").sum(-1))
    (seconds,) = epochs.pop("seconds")
    assert seconds > 0
    assert epochs == {
        "loss": [None],
        "accuracy": [hits[test, 0].mean()],
        "noisy_accuracy": [hits[held_out, 0].mean()],
        "memorized": [hits[wrong, 0].mean()],
        "recovered": [hits[wrong, 1].mean()],
        "logit_norm": [pytest.approx(norms.mean(), rel=1e-6)],
    }


# A whole study.


METHODS = [{"losses": ["CE"], "taus": [1.0]}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study that is complete, and its records."""
    folder = tmp_path_factory.mktemp("finished")
    loaded = load(folder, epochs=2, methods=METHODS)
    return folder, run(loaded, results=folder / "results")


@pytest.fixture
def count_trainings(monkeypatch):
    trained = []

    def counted(study, cell, *arguments):
        trained.append(cell)
        return _training.train(study, cell, *arguments)

    monkeypatch.setattr("keras_logitclip.study._run.train", counted)
    return trained


@pytest.mark.gradients
def test_a_complete_study_trains_nothing(finished, count_trainings):
    folder, records = finished
    assert [record["value"] for record in records] == [None, 1.0]
    assert [record["method"] for record in records] == ["plain", "tau"]
    results = folder / "results"
    assert not list((results / "backups").iterdir())
    loaded = study.load(folder / "small.toml")
    assert run(loaded, results=results) == records
    assert not count_trainings


@pytest.mark.gradients
def test_each_seed_has_noise_and_a_training_of_its_own():
    loaded = load(epochs=1, seeds=2, noise=[{"kind": "symmetric", "rate": 0.4}])
    data = load_data(loaded, None)
    records = run(loaded)
    assert [record["seed"] for record in records] == [0, 1]
    for record, cell in zip(records, loaded.cells, strict=True):
        noisy = make_noise(loaded, data, cell.noise, cell.seed, None)
        np.testing.assert_allclose(record["transition"], noisy.transition, atol=1e-6)
    one, other = records
    assert one["transition"] != other["transition"]
    assert one["epochs"]["loss"] != other["epochs"]["loss"]


@pytest.mark.gradients
def test_the_progress_bar_counts_epochs(finished, capsys):
    folder, _ = finished
    loaded = study.load(folder / "small.toml")
    run(loaded, results=folder / "results", verbose=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "small: 100%" in printed.err
    assert "4/4" in printed.err
    assert "2/2 cells" in printed.err


CHANGES = {
    "epochs": ({"epochs": 3}, "epochs: 2 there, 3 here"),
    "noise": (
        {"noise": [{"kind": "clean"}]},
        "noise: .*'symmetric'.* there, .*'clean'",
    ),
    "added": ({"methods": [{"losses": ["CE", "GCE"]}]}, "methods: .* here"),
    "optimizer": ({"optimizer": {"momentum": 0.5}}, "optimizer: .*0.9.*there.*0.5"),
}


@pytest.mark.gradients
@pytest.mark.parametrize(("changes", "message"), CHANGES.values(), ids=CHANGES)
def test_a_changed_study_is_refused(changes, message, finished, count_trainings):
    folder, _ = finished
    changes = {"epochs": 2, "methods": METHODS, **changes}
    with pytest.raises(ValueError, match=f"'small'.*Received: {message}"):
        run(load(**changes), results=folder / "results")
    assert not count_trainings


@pytest.mark.gradients
def test_records_of_other_settings_are_not_taken_up():
    """Those that were left on the disk, where the database is gone."""
    run(load(epochs=1))
    Path("results/small/study.db").unlink()
    (record,) = run(load(epochs=2))
    assert len(record["epochs"]["loss"]) == 2


@pytest.mark.gradients
def test_results_of_a_newer_version_are_refused(monkeypatch):
    loaded = load(epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr("keras_logitclip.study._run.FORMAT", 2)
        run(loaded)
    with pytest.raises(ValueError, match="newer version.*format 1.*format 2. Update"):
        run(loaded)


@pytest.mark.gradients
def test_two_studies_in_one_folder_share_nothing(count_trainings):
    one, two = load(epochs=1), load(name="other.toml", epochs=1)
    for loaded in (one, two):
        (record,) = run(loaded, results="both")
        assert record["study"] == loaded.name
    assert len(count_trainings) == 2


@pytest.mark.gradients
def test_a_file_that_is_no_database():
    Path("results/small").mkdir(parents=True)
    Path("results/small/study.db").write_text("This is a text, not a database.")
    with pytest.raises(ConnectionError, match="file is not a database"):
        run(load())


def fail_once(monkeypatch, target, error, when=lambda *arguments, **others: True):
    """Makes a function fail at its first call for which `when` is true."""
    owner, name = target
    function, failed = getattr(owner, name), []

    def fails(*arguments, **others):
        if not failed and when(*arguments, **others):
            failed.append(arguments)
            raise error
        return function(*arguments, **others)

    monkeypatch.setattr(owner, name, fails)
    return failed


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
WRITTEN = {"backup": "backups", "record": "cells"}


@pytest.mark.gradients
@pytest.mark.parametrize("file", WRITTEN)
def test_a_full_disk(file, finished, monkeypatch):
    def is_file(source, path):
        return WRITTEN[file] in Path(path).parts

    loaded = load(epochs=2)
    failed = fail_once(monkeypatch, (_training.os, "replace"), FULL, is_file)
    with pytest.raises(
        OSError, match="Cannot write .*No space left on device.*goes on"
    ):
        run(loaded)
    assert len(failed) == 1
    assert not Path(failed[0][0]).exists()
    (record,) = run(loaded)
    assert record["epochs"]["loss"] == finished[1][0]["epochs"]["loss"]


def database_error(message, lost=False):
    optuna = pytest.importorskip("optuna")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    error = optuna.exceptions.StorageInternalError("An exception is raised.")
    error.__context__ = sqlalchemy.exc.OperationalError(
        "INSERT", {}, sqlite3.OperationalError(message), connection_invalidated=lost
    )
    return error


@pytest.mark.gradients
def test_a_database_without_space(finished, count_trainings, monkeypatch):
    storage = pytest.importorskip("optuna").storages.RDBStorage
    loaded = load(epochs=2, methods=METHODS)
    with monkeypatch.context() as patch:
        fail_once(
            patch,
            (storage, "set_trial_user_attr"),
            database_error("database or disk is full"),
            when=lambda storage, trial, key, value: key == "record",
        )
        with pytest.raises(ConnectionError, match="is kept.*database or disk is full"):
            run(loaded)
    records = run(loaded, grace_period=1)
    # The training whose record could not be stored is not repeated.
    assert sorted(count_trainings) == sorted(set(count_trainings))
    assert [*map(without_times, records)] == [*map(without_times, finished[1])]


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["OperationalError", "IntegrityError"])
def test_another_process_makes_the_tables(kind, monkeypatch):
    storage = pytest.importorskip("optuna").storages.RDBStorage
    sqlalchemy = pytest.importorskip("sqlalchemy")
    original = sqlite3.OperationalError("table studies already exists")
    error = getattr(sqlalchemy.exc, kind)("CREATE", {}, original)
    failed = fail_once(monkeypatch, (storage, "__init__"), error)
    (record,) = run(load(epochs=1))
    assert failed
    assert len(record["epochs"]["loss"]) == 1


LOST = {
    "queue": "_create_new_trial",
    "report": "set_trial_intermediate_value",
    "record": "set_trial_user_attr",
    "end": "set_trial_state_values",
    "read": "_get_trials",
    "heartbeat": "record_heartbeat",
}


@pytest.mark.gradients
@pytest.mark.parametrize("what", LOST)
def test_a_server_that_goes_away(what, finished, monkeypatch, caplog):
    storage = pytest.importorskip("optuna").storages.RDBStorage
    failed = fail_once(
        monkeypatch, (storage, LOST[what]), database_error("gone", lost=True)
    )
    (record,) = run(load(epochs=2), grace_period=2)
    assert failed
    assert "The database went away" in caplog.text
    assert record["epochs"]["loss"] == finished[1][0]["epochs"]["loss"]


# Results that were damaged.


@pytest.mark.gradients
@given(damaged=damages())
@reproducibly
def test_a_damaged_record_is_none(finished, damaged):
    (path, *_) = sorted((finished[0] / "results" / "cells").iterdir())
    valid = _run._finished_record(path)
    assert valid in finished[1]
    copy = Path("copy.json")
    copy.write_bytes(damaged(path.read_bytes()))
    with little():
        assert _run._finished_record(copy) in (None, valid)


NO_RECORDS = {
    "empty": "",
    "null": "null",
    "number": "1",
    "list": "[{}]",
    "text": '"sha256"',
    "no-digest": '{"epochs": {}}',
    "wrong-digest": '{"epochs": {}, "sha256": null}',
    "deep": 10**5 * "[" + 10**5 * "]",
    "long": 10**6 * "9",
}


@pytest.mark.gradients
@pytest.mark.parametrize("contents", NO_RECORDS.values(), ids=NO_RECORDS)
def test_a_foreign_record_is_trained_again(contents, finished, count_trainings):
    loaded = load(epochs=2)
    (cell,) = loaded.cells
    path = Path("results/small/cells") / f"{_run.cell_name(loaded, cell)}.json"
    path.parent.mkdir(parents=True)
    path.write_text(contents)
    (record,) = run(loaded)
    assert count_trainings == [cell]
    assert record["epochs"]["loss"] == finished[1][0]["epochs"]["loss"]
    assert _run._finished_record(path) == record


@pytest.mark.gradients
@given(damaged=damages())
@reproducibly
def test_a_damaged_database(finished, damaged):
    """It is refused, or it can be read, as what SQLite itself does not notice."""
    loaded = study.load(finished[0] / "small.toml")
    path = Path("study.db")
    path.write_bytes(damaged((finished[0] / "results" / "study.db").read_bytes()))
    try:
        with queue.explained_errors():
            records = _run.records(_run.open_store(loaded, Path("."), None), loaded)
    except (ValueError, ConnectionError) as error:
        message = str(error)
        assert "study.db is damaged" in message or "the database" in message.lower()
    else:
        assert len(records) <= len(finished[1])


@pytest.mark.gradients
@pytest.mark.parametrize("size", [20, 5000, -5000])
def test_a_database_that_is_replaced(size, finished, count_trainings):
    """What was trained is taken from the records beside it."""
    shutil.copytree(finished[0] / "results", "results")
    loaded = study.load(finished[0] / "small.toml")
    database = Path("results/study.db")
    database.write_bytes(database.read_bytes()[:size])
    with pytest.raises(ConnectionError, match="results/study.db is damaged. Move it"):
        run(loaded, results="results")
    database.unlink()
    assert run(loaded, results="results") == finished[1]
    assert not count_trainings


def test_another_backend_than_that_of_the_study():
    other = next(name for name in ("jax", "torch") if name != BACKEND)
    message = (
        f"for the backend '{other}', and Keras runs on '{BACKEND}'. .*KERAS_BACKEND"
    )
    with pytest.raises(ValueError, match=message):
        run(load(backend=other))


BAD_ARGUMENTS = {
    "workers": ({"workers": 0}, "`workers`: expected an integer of at least 1"),
    "grace": ({"grace_period": 0.5}, "`grace_period`: expected an integer"),
    "storage": ({"storage": "redis://u:secret@host"}, "`storage`.*another URL"),
}


@pytest.mark.gradients
@pytest.mark.parametrize(
    ("arguments", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        run(load(), **arguments)
    assert "secret" not in str(error.value)


# The command.


@pytest.fixture
def command(capsys):
    """Runs an action of the command, and returns what it prints."""

    def run(action, *arguments):
        pytest.importorskip("optuna")
        main(["study", action, *map(str, arguments)])
        return capsys.readouterr().out

    return run


@pytest.mark.gradients
def test_run_and_report(command):
    path = write_study(Path("."), {"backend": BACKEND, "epochs": 1})
    printed = command("run", path)
    assert "symmetric 0.4" in printed
    assert f"Written to {Path('results/small')}: " in printed
    assert Path("results/small/report.md").exists()
    assert command("report", path, "--output", "elsewhere").count("elsewhere") == 1
    report = Path("results/small/report.md").read_text()
    assert Path("elsewhere/report.md").read_text() == report
    listed = command("list-cells", path).splitlines()
    assert listed[-1] == "1 of 1 cells are trained."
    assert listed[0].startswith("trained  symmetric-0.4-CE-plain-0-")


def test_list_cells_before_the_first_run(command):
    path = write_study(Path("."), {"seeds": 2})
    *cells, total = command("list-cells", path).splitlines()
    assert [cell[:10] for cell in cells] == ["-        s"] * 2
    assert total == "0 of 2 cells are trained."
    assert not Path("results").exists()


@pytest.mark.gradients
def test_dry_run(command):
    path = write_study(Path("."), {"backend": BACKEND, "epochs": 200, "seeds": 5})
    printed = command("run", path, "--dry-run", "--workers", "2")
    assert printed.startswith("5 cells of 200 epochs: about ")
    assert "hours with 2 processes" in printed
    assert not list(Path(".").glob("results/*/*.db"))


ERRORS = {
    "no-file": (["run", "missing.toml"], "No such file or directory: 'missing.toml'"),
    "no-results": (["report", "small.toml"], "no results in results.small. Expected"),
    "workers": (["run", "small.toml", "--workers", "0"], "`workers`: expected"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_of_one_line(arguments, message, capsys):
    pytest.importorskip("optuna")
    write_study(Path("."), {"backend": TRAINED_ON})
    with pytest.raises(SystemExit) as stopped:
        main(["study", *arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"error: .*{message}", line)
    assert not Path("results").exists()


@pytest.mark.gradients
def test_optuna_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "keras-logitclip\[tuning\]"'):
        study.run(load(), verbose=False)
