"""Study files, their data, and the command."""

import datetime
import json
import math
import pickle
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given

from keras_logitclip import noise
from keras_logitclip import study
from keras_logitclip.__main__ import main
from keras_logitclip._jobs.description import describe_model
from keras_logitclip.study import _config
from keras_logitclip.study import _plan
from keras_logitclip.study._config import Candidate
from keras_logitclip.study._data import import_function
from keras_logitclip.study._data import load_data
from keras_logitclip.study._data import make_noise
from keras_logitclip.study._plan import Cell
from tests import subprocesses
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
from tests.study_files import write_study

pytestmark = pytest.mark.once

# Study files.


def test_defaults():
    settings = load().settings
    assert (settings.validation_split, settings.seeds) == (0.1, 1)
    assert (settings.batch_size, settings.select_seeds) == (64, None)
    assert settings.data.standardize is False
    assert settings.data.train_samples is None
    assert settings.optimizer.schedule == "constant"
    assert settings.optimizer.learning_rates == (0.1,)
    assert settings.optimizer.arguments == {"momentum": 0.9}
    assert settings.model.arguments == {"width": 8}
    assert settings.noise == (_config.Symmetric(rate=0.4),)
    (methods,) = settings.methods
    assert methods.plain is True
    assert methods.taus == methods.value_limits == ()


def test_what_is_left_out_of_a_study_file():
    path = write_study(Path("."), {"batch_size": None})
    settings = study.load(path).settings
    assert (settings.backend, settings.batch_size) == (None, 128)


def test_a_file_with_a_byte_order_mark():
    path = write_study(Path("."), {})
    expected = study.load(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert study.load(path) == expected


def test_the_configuration_is_made_of_what_json_has():
    given = {"since": datetime.date(2020, 1, 1), "most": math.inf}
    loaded = load(methods=[{"losses": ["ce"], "taus": [1, math.inf]}], model=given)
    config = loaded.config
    assert loaded.settings.model.arguments == {"width": 8, **given}
    assert json.loads(json.dumps(config, allow_nan=False)) == config
    assert config["model"]["arguments"]["most"] == "inf"
    assert config["methods"][0]["losses"] == ["CE"]
    assert config["methods"][0]["taus"] == [1.0, "inf"]
    assert config["optimizer"]["arguments"] == {"momentum": 0.9}
    assert config["noise"][0]["kind"] == "symmetric"
    assert config["backend"] == TRAINED_ON


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


STEPS = {"schedule": "steps"}
RATES = {"learning_rate": None, "learning_rates": [0.1, 0.3]}
BAD_SETTINGS = {
    "unknown-key": (
        {"epoch": 3},
        "unknown field `epoch` in the study. Received: {",
    ),
    "missing-key": ({"epochs": None}, "missing required field `epochs` in the study"),
    "type": ({"epochs": 2.5}, "Expected `int` in `epochs`. Received: 2.5"),
    "bool": ({"seeds": True}, "Expected `int` in `seeds`. Received: True"),
    "epochs-0": ({"epochs": 0}, "Expected `int` >= 1 in `epochs`. Received: 0"),
    "batch-size": ({"batch_size": -1}, "`int` >= 1 in `batch_size`. Received: -1"),
    "split": ({"validation_split": 1}, "< 1.0 in `validation_split`. Received: 1"),
    "backend": ({"backend": "numpy"}, "one of tensorflow, jax, torch.*'numpy'"),
    "data": ({"data": {"name": "svhn"}}, "digits, mnist, .*module:function.*'svhn'"),
    "no-table": ({"data": "mnist"}, "Expected `object` in `data`. Received: 'mnist'"),
    "data-key": ({"data": {"size": 3}}, "unknown field `size` in `data`. Received: {"),
    "samples": ({"data": {"test_samples": 0}}, ">= 1 in `data.test_samples`"),
    "no-label": ({"data": {"name": "a.csv"}}, "`label` in .*name='a.csv'"),
    "label": ({"data": {"label": "x"}}, "only for tables. .*label='x'"),
    "text": (
        {"data": {"name": "a.npz", "text": "x"}},
        "only for tables. .*name='a.npz'.*text='x'",
    ),
    "model": ({"model": {"name": "vgg"}}, r"`name` in \[model\].*small_cnn.*'vgg'"),
    "model-name": ({"model": {"name": None}}, "required field `name` in `model`"),
    "optimizer": (
        {"optimizer": {"name": "sdg"}},
        r"Keras optimizer in \[optimizer\].*sdg",
    ),
    "ema": ({"optimizer": {"use_ema": True}}, r"no `use_ema` in \[optimizer\]"),
    "argument": (
        {"optimizer": {"moment": 1.0}},
        r"Keras optimizer in \[optimizer\].*moment",
    ),
    "no-rate": (
        {"optimizer": {"learning_rate": None}},
        "missing required field `learning_rates` in `optimizer`",
    ),
    "both-rates": (
        {"optimizer": {"learning_rates": [0.1]}},
        r"Keras optimizer in \[optimizer\].*multiple values.*learning_rate",
    ),
    "no-rates": ({"optimizer": {**RATES, "learning_rates": []}}, "length >= 1"),
    "rate": (
        {"optimizer": {"learning_rate": 0}},
        r"`float` > 0.0 in `optimizer.learning_rates\[0\]`. Received: 0",
    ),
    "rate-inf": ({"optimizer": {"learning_rate": math.inf}}, "Received: inf"),
    "schedule": (
        {"optimizer": {"schedule": "step"}},
        "constant, steps, cosine in .*Received: 'step'",
    ),
    "no-boundaries": ({"optimizer": STEPS}, r"`boundaries`.*Received: \[\]"),
    "boundaries": (
        {"optimizer": {"boundaries": [0.5]}},
        r"only if .* Received: \[0.5\], schedule 'constant'",
    ),
    "shrinking": (
        {"optimizer": {**STEPS, "boundaries": [0.7, 0.4]}},
        r"growing shares.*Received: \[0.7, 0.4\]",
    ),
    "epochs-as-boundaries": (
        {"optimizer": {**STEPS, "boundaries": [80, 120]}},
        r"`float` < 1.0 in `optimizer.boundaries\[0\]`. Received: 80",
    ),
    "no-noise": ({"noise": []}, "`array` of length >= 1 in `noise`"),
    "one-noise": ({"noise": {"kind": "clean"}}, "Expected `array` in `noise`"),
    "kind": ({"noise": [{"kind": "uniform"}]}, "clean, symmetric, .*'uniform'"),
    "kind-list": ({"noise": [{"kind": ["clean"]}]}, r"Received: \['clean'\]"),
    "no-kind": ({"noise": [{"rate": 0.5}]}, r"field `kind` in `noise\[0\]`"),
    "no-section": ({"noise": ["clean"]}, "Expected `object` .*Received: 'clean'"),
    "no-noise-rate": (
        {"noise": [{"kind": "symmetric"}]},
        r"required field `rate` in `noise\[0\]`.*'symmetric'",
    ),
    "rate-of-clean": (
        {"noise": [{"kind": "clean", "rate": 0.1}]},
        "unknown field `rate`",
    ),
    "rate-above-1": (
        {"noise": [{"kind": "pair_flip", "rate": 2}]},
        r"<= 1.0 in `noise\[0\].rate`. Received: 2",
    ),
    "scale": (
        {"noise": [{"kind": "instance_dependent", "rate": 0.4, "scale": -1}]},
        r"> 0.0 in `noise\[0\].scale`. Received: -1",
    ),
    "noise-twice": (
        {"noise": 2 * [{"kind": "symmetric", "rate": 0.5}]},
        "each noise once. Received: symmetric 0.5, symmetric 0.5",
    ),
    "no-methods": ({"methods": []}, "length >= 1 in `methods`"),
    "no-losses": (
        {"methods": [{"losses": []}]},
        r"length >= 1 in `methods\[0\].losses`",
    ),
    "loss": ({"methods": [{"losses": ["CEE"]}]}, "'GCE', .*Received: name='CEE'"),
    "no-method": (
        {"methods": [{"losses": ["CE"], "plain": False}]},
        "`plain = true` or values of `taus`",
    ),
    "normalized-plain": (
        {"methods": [{"losses": ["CE"], "normalize_gradient": True}]},
        "`normalize_gradient` needs `taus`",
    ),
    "tau": (
        {"methods": [{"losses": ["CE"], "taus": [0]}]},
        r"`float` > 0.0 in `methods\[0\].taus\[0\]`. Received: 0",
    ),
    "tau-text": ({"methods": [{"losses": ["CE"], "taus": ["1"]}]}, "`float`.*'1'"),
    "limit": (
        {"methods": [{"losses": ["CE"], "value_limits": [math.inf]}]},
        "Received: inf",
    ),
    "taus": ({"methods": [{"losses": ["CE"], "taus": 1.0}]}, "Expected `array`.*1.0"),
    "trials": (
        {
            "trials": 4,
            "optimizer": RATES,
            "methods": [{"losses": ["CE"], "taus": [1, 2]}],
        },
        "at most 2 `trials`.* Received: 4",
    ),
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
            assert _plan.cells(loaded, {})
            return
    assert message.startswith("Cannot use small.toml: ")


ENDLESS = {
    "arrays": "x = " + 10**4 * "[" + 10**4 * "]",
    "tables": pytest.param(
        "[model]\nname = 'mlp'\n" + ".".join(1100 * ["x"]) + " = 1",
        marks=pytest.mark.skipif(
            sys.version_info >= (3, 12), reason="Python can record so many tables"
        ),
    ),
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


# The plan.


def cells_of(accuracies=None, **changes):
    return _plan.cells(load(**changes), accuracies or {})


def test_cells_are_in_order_and_each_is_there_once():
    loaded = load(
        seeds=2,
        noise=[{"kind": "clean"}, {"kind": "pair_flip", "rate": 0.25}],
        optimizer=RATES,
        methods=[
            {"losses": ["ce", "fl"], "taus": [1, math.inf]},
            {"losses": ["CE"], "taus": [1.0], "value_limits": [2], "plain": False},
            {"losses": ["CE"], "norm_penalties": [0.1], "learning_rates": [0.3, 1]},
        ],
    )
    methods = [
        ("CE", "plain", None, 0.1),
        ("CE", "plain", None, 0.3),
        ("CE", "plain", None, 1.0),
        ("CE", "tau", 1.0, 0.1),
        ("CE", "tau", 1.0, 0.3),
        ("CE", "tau", math.inf, 0.1),
        ("CE", "tau", math.inf, 0.3),
        ("CE", "value_limit", 2.0, 0.1),
        ("CE", "value_limit", 2.0, 0.3),
        ("CE", "norm_penalty", 0.1, 0.3),
        ("CE", "norm_penalty", 0.1, 1.0),
        ("Focal", "plain", None, 0.1),
        ("Focal", "plain", None, 0.3),
        ("Focal", "tau", 1.0, 0.1),
        ("Focal", "tau", 1.0, 0.3),
        ("Focal", "tau", math.inf, 0.1),
        ("Focal", "tau", math.inf, 0.3),
    ]
    cells = _plan.cells(loaded, {})
    assert cells == [
        (noise_name, *method, seed)
        for seed in (0, 1)
        for method in methods
        for noise_name in ("clean", "pair-flip 0.25")
    ]
    assert _plan.count(loaded) == len(cells)
    assert (loaded.name, loaded.folder) == ("small", Path("."))


def test_normalized_gradients_are_a_method_of_their_own():
    section = {"losses": ["CE"], "taus": [1.0], "normalize_gradient": True}
    cells = cells_of(methods=[section, {"losses": ["CE"], "taus": [1.0]}])
    assert [cell.method for cell in cells] == ["plain", "normalized_tau", "tau"]
    assert {cell.method for cell in cells} < set(_plan.METHODS)


def test_one_seed_selects_and_the_others_train_what_it_selected():
    changes = {
        "seeds": 3,
        "select_seeds": 1,
        "optimizer": RATES,
        "noise": [{"kind": "clean"}, {"kind": "pair_flip", "rate": 0.25}],
    }
    loaded = load(**changes)
    first = _plan.cells(loaded, {})
    assert first == [
        Cell(noise_name, "CE", "plain", None, rate, 0)
        for rate in (0.1, 0.3)
        for noise_name in ("clean", "pair-flip 0.25")
    ]
    best = {"clean": 0.1, "pair-flip 0.25": 0.3}
    accuracies = {cell: float(cell.learning_rate == best[cell.noise]) for cell in first}
    del accuracies[first[1]]
    # Of the other noise, it is not known yet.
    assert _plan.cells(loaded, accuracies)[4:] == [
        Cell("clean", "CE", "plain", None, 0.1, seed) for seed in (1, 2)
    ]
    accuracies[first[1]] = 0.0
    later = _plan.cells(loaded, accuracies)[4:]
    assert {(cell.noise, cell.learning_rate) for cell in later} == set(best.items())
    assert _plan.count(loaded) == 4 + len(later)


def test_what_has_no_choice_waits_for_nothing():
    cells = cells_of(seeds=3, select_seeds=1)
    assert [cell.seed for cell in cells] == [0, 1, 2]


def test_all_seeds_select_unless_fewer_are_asked_for():
    assert len(cells_of(seeds=2, optimizer=RATES)) == 4
    assert len(cells_of(seeds=2, select_seeds=5, optimizer=RATES)) == 4


GRID = {
    "optimizer": {"learning_rate": None, "learning_rates": [0.01, 0.03, 0.1, 0.3]},
    "methods": [{"losses": ["CE", "GCE"], "taus": [0.5, 1.5, math.inf]}],
}


def test_all_methods_have_the_same_number_of_trials():
    whole = load(**GRID).candidates
    drawn = load(trials=4, **GRID).candidates
    assert {len(candidates) for candidates in drawn.values()} == {4}
    for key, candidates in drawn.items():
        assert [found for found in whole[key] if found in candidates] == candidates
    assert drawn["CE", "tau"] != drawn["GCE", "tau"]


def test_more_trials_keep_the_earlier_ones():
    few, many = (load(trials=trials, **GRID).candidates for trials in (2, 4))
    for key in few:
        assert set(few[key]) < set(many[key])


CHOICES = {
    "mean": ({(1, 0.1): {0: 0.5, 1: 0.9}, (2, 0.1): {0: 0.6, 1: 0.7}}, (1, 0.1)),
    "shared": ({(1, 0.1): {0: 0.5, 1: 0.9}, (2, 0.1): {0: 0.6}}, (2, 0.1)),
    "shares-none": ({(1, 0.1): {0: 0.5}, (2, 0.1): {1: 0.4}}, (1, 0.1)),
    "larger-value": ({(1, 0.1): {0: 0.5}, (2, 0.1): {0: 0.5}}, (2, 0.1)),
    "infinity": ({(math.inf, 0.1): {0: 0.5}, (2, 0.1): {0: 0.5}}, (math.inf, 0.1)),
    "smaller-rate": ({(None, 0.1): {0: 0.5}, (None, 0.3): {0: 0.5}}, (None, 0.1)),
    "rounding": (
        {(1, 0.1): {0: 0.3 + 1e-15}, (2, 0.1): {0: 0.3}},
        (2, 0.1),
    ),
}


@pytest.mark.parametrize(("accuracies", "chosen"), CHOICES.values(), ids=CHOICES)
def test_choice(accuracies, chosen):
    of_candidates = {Candidate(*key): seeds for key, seeds in accuracies.items()}
    assert _plan.choose(of_candidates) == chosen


SCHEDULES = {
    "constant": ({}, [1, 1, 1, 1]),
    "steps": ({**STEPS, "boundaries": [0.5, 0.7]}, [1, 1, 0.1, 0.01]),
    "factor": ({**STEPS, "boundaries": [0.25], "factor": 0.5}, [1, 0.5, 0.5, 0.5]),
    "cosine": ({"schedule": "cosine"}, [1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5]),
}


@pytest.mark.parametrize(("changes", "factors"), SCHEDULES.values(), ids=SCHEDULES)
def test_schedules(changes, factors):
    section = load(optimizer=changes).settings.optimizer
    rates = [_config.learning_rate(section, 0.3, epoch, 4) for epoch in range(4)]
    assert rates == pytest.approx([0.3 * factor for factor in factors])


def test_optimizers_have_the_rate_and_the_arguments():
    section = load(optimizer={"nesterov": True}).settings.optimizer
    optimizer = _config.make_optimizer(section, 0.3)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert float(optimizer.learning_rate) == pytest.approx(0.3)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


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


def test_confusions_of_the_literature():
    kind = {"kind": "asymmetric", "rate": 0.4}
    loaded = load(data={"name": "digits"}, noise=[kind])
    data = load_data(loaded, None)
    noisy = make_noise(loaded, data, "asymmetric 0.4", 3, None)
    expected = noise.asymmetric(data.y_train, 0.4, noise.MNIST_CONFUSIONS, seed=3)
    np.testing.assert_array_equal(noisy.labels, expected.labels)


HUMAN = {"kind": "human", "file": "human.pt", "labels": "worse"}


def write_human_labels(clean, **others):
    contents = {"clean_label": clean, "worse_label": clean, **others}
    Path("human.pt").write_bytes(pickle.dumps(contents, 2))


def test_human_labels_of_a_subset():
    loaded = load(
        data={"name": "study_samples:ten", "train_samples": 50}, noise=[HUMAN]
    )
    clean = np.arange(240) % 10
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
    "nothing": (own_data("nothing"), r"to have `x_train`.*Received: .*shapes \[\]"),
    "lengths": (own_data("other_lengths"), r"one label for each.*\(239, 6\), \(240,\)"),
    "shapes": (own_data("other_shapes"), r"equal shape.*\(240, 6\).*\(80, 5\)"),
    "one-hot": (own_data("one_hot"), r"class ids.*float64 of shape \(240, 4\)"),
    "negative": (own_data("negative"), "class ids, integers from 0"),
    "mixed": (own_data("mixed"), "all class ids, .* or all names.*: object of shape"),
    "text": (own_data("text"), "samples of .* to be finite numbers.*<U3"),
    "too-many": ({"data": {"train_samples": 241}}, "at most 240.*Received: 241"),
    "no-mapping": (
        noise_of(kind="asymmetric", rate=0.5),
        "`mapping` in .*your own data",
    ),
    "mapping": (
        noise_of(kind="asymmetric", rate=0.5, mapping=[1, 2, 3, 4, 0]),
        "'asymmetric 0.5' .*the 4 classes of the data. Received: 5",
    ),
    "short-mapping": (
        noise_of(kind="asymmetric", rate=0.5, mapping=[1, 0]),
        r"labels.*\[0, 2\)|at most 1|num_classes",
    ),
    "rare": (
        {"validation_split": 0.001},
        "`validation_split`: .* holds out at least one sample",
    ),
    "width": ({"model": {"width": 0}}, "`width`: expected an integer of at least 1"),
    "argument": ({"model": {"units": 3}}, "'mlp'.*width.*depth.*argument 'units'"),
    "no-model": (own_model("no_model"), "not compiled. Received: <class 'tuple'>"),
    "compiled": (own_model("compiled_model"), "not compiled. Received: a compiled one"),
    "outputs": (own_model("narrow_model"), r"\(None, 4\).*Received: \(None, 3\)"),
    "probabilities": (own_model("probabilities"), "returns probabilities. Remove the"),
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
    with pytest.raises(FileNotFoundError, match="the file 'human.pt' in: "):
        run(loaded)
    write_human_labels(np.arange(30) % 10)
    with pytest.raises(ValueError, match="the 30 images.*Received: 240 labels"):
        run(loaded)


def test_human_labels_of_other_classes(monkeypatch):
    loaded = load(noise=[HUMAN])
    y_train = load_data(loaded, None).y_train
    write_human_labels(y_train)
    with pytest.raises(ValueError, match="'human worse' .*4 classes.*Received: 10"):
        make_noise(loaded, load_data(loaded, None), "human worse", 0, None)


# Own functions.


def write_modules(folder, number):
    """A module that imports another one, at the top and inside a function."""
    folder.mkdir()
    (folder / "study_helper.py").write_text(f"NUMBER = {number}")
    (folder / "study_later.py").write_text(f"NUMBER = {number}")
    (folder / "study_own.py").write_text(
        "import study_helper\n"
        "def numbers(added=0):\n"
        "    import study_later\n"
        "    return study_helper.NUMBER + added, study_later.NUMBER + added\n"
    )
    return write_study(folder, {})


def test_two_folders_with_modules_of_the_same_names(monkeypatch):
    elsewhere = object()
    monkeypatch.setitem(sys.modules, "study_later", elsewhere)
    before = list(sys.path)
    one, two = (
        import_function(
            study.load(write_modules(Path(name), number)), "study_own:numbers"
        )
        for name, number in (("one", 1), ("two", 2))
    )
    assert (one(), two(added=1), one()) == ((1, 1), (3, 3), (1, 1))
    assert "study_helper" not in sys.modules
    assert sys.modules["study_later"] is elsewhere
    assert sys.path == before


def test_an_edited_module_is_read_again():
    path = write_modules(Path("one"), 1)
    Path("one/study_own.py").write_text("def numbers():\n    return 'edited'\n")
    assert import_function(study.load(path), "study_own:numbers")() == "edited"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number = 3", "expected a function. Received: 3"),
        ("def number(shape): ...", "too many positional arguments"),
        ("def number(shape, classes): ...", "unexpected keyword argument 'width'"),
    ],
)
def test_what_cannot_be_called_so(function, message):
    Path("study_own.py").write_text(function)
    with pytest.raises(ValueError, match=f"Cannot use 'study_own:number'.*{message}"):
        import_function(load(), "study_own:number")((6,), 4, width=8)


def test_packages_that_are_installed_below_the_study_stay(monkeypatch):
    packages = Path("venv").resolve()
    packages.mkdir()
    (packages / "study_installed.py").write_text("")
    monkeypatch.syspath_prepend(packages)
    Path("study_own.py").write_text("import study_installed\nfunction = dict\n")
    assert import_function(load(), "study_own:function")() == {}
    assert sys.modules.pop("study_installed").__file__.startswith(str(packages))


LAYER = """
import keras

class Scaled(keras.layers.Layer):
    def call(self, x):
        return {factor} * x
"""
MODEL = """
import keras
from study_layer import Scaled

def build(shape, num_classes):
    return keras.Sequential([keras.Input(shape), Scaled(), keras.layers.Dense(4)])
"""


def describe_own_model(folder, factor):
    folder.mkdir(exist_ok=True)
    (folder / "study_layer.py").write_text(LAYER.format(factor=factor))
    (folder / "study_model.py").write_text(MODEL)
    build = import_function(load(folder), "study_model:build")
    return describe_model(lambda: build((6,), 4))


def test_an_own_model_is_told_by_all_that_it_imports_and_not_by_its_folder():
    described = describe_own_model(Path("one"), factor=2)
    assert describe_own_model(Path("two"), factor=2) == described
    assert describe_own_model(Path("two"), factor=31) != described


def test_installed_modules_and_packages_beside_the_study():
    Path("study_package").mkdir()
    Path("study_package/three.py").write_text("NUMBER = 3\n")
    Path("study_package/part.py").write_text(
        "def number():\n    from .three import NUMBER\n    return NUMBER\n"
    )
    assert import_function(load(), "study_package.part:number")() == 3
    assert not any(name.startswith("study_package") for name in sys.modules)
    assert import_function(load(), "keras.utils:to_categorical")([1]).shape == (1, 2)


# Files of arrays, and tables.


def samples_of(folder=Path(".")):
    load(folder)
    return import_function(load(folder), "study_samples:load")()


def arrays_of(data):
    return data.x_train, data.y_train, data.x_test, data.y_test


def test_arrays_of_a_file():
    arrays = samples_of()
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez("a.npz", **dict(zip(names, arrays, strict=True)))
    data = load_data(load(data={"name": "a.npz"}), None)
    for found, expected in zip(arrays_of(data), arrays, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert data.scale == np.float32(1 / arrays[0].max())


def test_arrays_without_some_to_test_on():
    """A share of each class is split off; labels can be names."""
    x, y, _, _ = samples_of()
    names = np.array(["d", "a", "c", "b"])[y]
    np.savez_compressed("a.npz", x_train=x, y_train=names)
    data = load_data(load(data={"name": "a.npz", "test_split": 0.25}), None)
    assert np.bincount(data.y_test).tolist() == [15] * 4
    assert np.bincount(data.y_train).tolist() == [45] * 4
    rows = np.concatenate([data.x_train, data.x_test])
    order, given = np.lexsort(rows.T), np.lexsort(x.T)
    np.testing.assert_array_equal(rows[order], x[given])
    found = np.concatenate([data.y_train, data.y_test])[order]
    np.testing.assert_array_equal(np.array(list("abcd"))[found], names[given])


def write_table(name, rows, header="category,text"):
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    Path(name).write_text("\n".join(lines) + "\n")


# In the order of the sorted classes, in which "NA" is a class like any other.
TEXTS = [("NA", "NA nothing"), ("card", "lost card"), ("rate", "exchange rate")]


def texts(count):
    return [(name, f"{text} number {i}") for i in range(count) for name, text in TEXTS]


TABLE = {"name": "table.csv", "label": "category", "text": "text", "features": 6}


def test_a_table_of_texts():
    write_table("table.csv", texts(20))
    write_table("test.csv", texts(4))
    data = load_data(load(data={**TABLE, "test": "test.csv"}), None)
    assert data.num_classes == 3
    assert (data.x_train.shape, data.x_test.shape) == ((60, 6), (12, 6))
    np.testing.assert_array_equal(data.y_train, np.arange(60) % 3)
    np.testing.assert_array_equal(data.y_test, np.arange(12) % 3)
    for x in (data.x_train, data.x_test):
        assert x.dtype == "float32"
        np.testing.assert_allclose(np.square(x).mean(-1), 1, rtol=1e-5)
    similar = data.x_test @ data.x_train.T
    np.testing.assert_array_equal(similar.argmax(-1) % 3, data.y_test)


def test_the_test_set_is_not_fitted_to():
    write_table("table.csv", texts(20))
    write_table("test.csv", texts(4))
    settings = {**TABLE, "test": "test.csv"}
    data = load_data(load(data=settings), None)
    write_table("test.csv", [("card", "new words"), ("card", "lost card number 1")])
    other = load_data(load(data=settings), None)
    np.testing.assert_array_equal(other.x_train, data.x_train)
    np.testing.assert_array_equal(other.x_test[0], 0)


def test_labels_of_two_kinds_are_refused():
    write_table("table.csv", texts(20))
    write_table("test.csv", [(0, "one"), (1, "two")])
    with pytest.raises(ValueError, match="'table.csv'.*all names .* and int64"):
        load_data(load(data={**TABLE, "test": "test.csv"}), None)


def test_a_table_of_numbers():
    write_table("table.csv", [(i % 2, i, i / 2) for i in range(40)], "id,a,b")
    write_table("test.csv", [(i, 0, i % 2) for i in range(6)], "b,ignored,id")
    data = {"name": "table.csv", "label": "id"}
    with pytest.raises(ValueError, match="Cannot read test.csv: KeyError: .*'a'"):
        load_data(load(data={**data, "test": "test.csv"}), None)
    split = load_data(load(data=data), None)
    assert (split.x_train.shape, split.x_test.shape) == ((32, 2), (8, 2))
    np.testing.assert_array_equal(split.x_train[:, 0], 2 * split.x_train[:, 1])
    np.testing.assert_array_equal(split.x_train[:, 0] % 2, split.y_train)
    assert (split.scale, split.offset) == (1, 0)


def test_files_of_the_data_folder_come_first():
    Path("elsewhere").mkdir()
    write_table("table.csv", texts(20))
    write_table("elsewhere/table.csv", texts(10))
    assert len(load_data(load(data=TABLE), "elsewhere").y_all) == 24
    Path("elsewhere/table.csv").unlink()
    assert len(load_data(load(data=TABLE), "elsewhere").y_all) == 48
    Path("table.csv").unlink()
    with pytest.raises(FileNotFoundError, match="'table.csv' in: .*elsewhere, "):
        load_data(load(data=TABLE), "elsewhere")


BAD_TABLES = {
    "label": ({"label": "lable"}, texts(9), r"column 'lable'. Received: \['category'"),
    "text": ({"text": "txt"}, texts(9), "a column 'txt'. Received: .*'text'"),
    "no-text": ({"text": None}, texts(9), r"numbers without gaps.*\['text'\]"),
    "gap": ({"text": None}, [(0, 1.5), (1, "")], r"without gaps.*\['text'\]"),
    "row": ({}, [*texts(9), ("card", "text", "more")], "ParserError"),
    "rows": ({}, [("card", "text", "more")], "a name for each column"),
    "no-label": ({}, [*texts(9), ("", "text")], "fractions or empty rows"),
    "fraction": ({}, [(i / 2, "text") for i in range(9)], "Received: fractions or"),
    "features": ({"features": 300}, texts(9), "Received: 300, 21 texts, "),
    "empty": ({}, [], r"arrays of shapes \[\(0,\)"),
}


@pytest.mark.parametrize(
    ("changes", "rows", "message"), BAD_TABLES.values(), ids=BAD_TABLES
)
def test_tables_that_cannot_be_used(changes, rows, message):
    write_table("table.csv", rows)
    data = {name: value for name, value in {**TABLE, **changes}.items() if value}
    with pytest.raises(ValueError, match=message):
        load_data(load(data=data), None)


BAD_ARRAYS = {
    "names": ({"x": [[1.0]], "y": [0]}, "expected the arrays x_train, y_train. .*x, y"),
    "half": (
        {"x_train": [[1.0]], "y_train": [0], "x_test": [[1.0]]},
        "arrays x_train, y_train, x_test, y_test",
    ),
    "objects": (
        {"x_train": [[None]], "y_train": [0]},
        "cannot be loaded.*allow_pickle",
    ),
    "nan": ({"x_train": [[math.nan]], "y_train": [0]}, "to be finite numbers"),
    "one-sample": ({"x_train": [[1.0]], "y_train": [0]}, "`test_split`: .* holds out"),
    "lengths": (
        {"x_train": [[1.0], [2.0]], "y_train": [0]},
        "one label for each sample",
    ),
    "labels": ({"x_train": [[1.0]], "y_train": [0.5]}, "names of classes.*float64"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_cannot_be_used(arrays, message):
    np.savez("a.npz", **{name: np.asarray(array) for name, array in arrays.items()})
    with pytest.raises(ValueError, match=message):
        load_data(load(data={"name": "a.npz"}), None)


def test_what_texts_need_is_optional(monkeypatch):
    write_table("table.csv", texts(20))
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    message = 'need sklearn.decomposition.*pip install "keras-logitclip.study."'
    with pytest.raises(ImportError, match=message):
        load_data(load(data=TABLE), None)


def test_the_fingerprint_is_that_of_samples_and_labels():
    write_table("table.csv", texts(20))
    data = load_data(load(data=TABLE), None)
    assert load_data(load(data=TABLE), None).fingerprint == data.fingerprint
    write_table("table.csv", [*texts(20)[:-1], ("rate", "another text")])
    assert load_data(load(data=TABLE), None).fingerprint != data.fingerprint
    part = load_data(load(data={"train_samples": 100}), None)
    assert part.fingerprint != load_data(load(), None).fingerprint


def test_inputs_are_scaled():
    data = load_data(load(data={"standardize": True}), None)
    inputs = data.inputs(data.x_train)
    assert inputs.dtype == "float32"
    np.testing.assert_allclose(inputs.mean(0), 0, atol=1e-5)


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.gradients
@pytest.mark.parametrize(
    "changes", [{}, {"data": {"name": "digits"}}], ids=["own-data", "built-in-data"]
)
def test_channels_first_is_refused(changes, channels_first):
    with pytest.raises(ValueError, match="`channels_last`.*Received: `channels_first`"):
        run(load(**changes))
    assert not Path("results").exists()


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
    assert Path("results/small/report.html").exists()
    assert command("report", path, "--output", "elsewhere").count("elsewhere") == 1
    report = Path("results/small/report.md").read_text()
    assert Path("elsewhere/report.md").read_text() == report
    listed = command("list-cells", path).splitlines()
    assert listed[-1] == "1 of 1 cells are trained."
    assert listed[0] == "trained  symmetric 0.4 CE plain 0.1 0"


def test_list_cells_before_the_first_run(command):
    path = write_study(Path("."), {"seeds": 2})
    *cells, total = command("list-cells", path).splitlines()
    assert [cell[:10] for cell in cells] == ["-        s"] * 2
    assert total == "0 of 2 cells are trained."
    assert not Path("results").exists()


@pytest.mark.gradients
def test_list_cells_of_two_stages(command):
    changes = {"backend": BACKEND, "epochs": 1, "seeds": 2, "select_seeds": 1}
    path = write_study(Path("."), {**changes, "optimizer": RATES})
    *cells, total = command("list-cells", path).splitlines()
    assert (len(cells), total) == (2, "0 of 3 cells are trained.")
    command("run", path)
    *cells, total = command("list-cells", path).splitlines()
    assert (len(cells), total) == (3, "3 of 3 cells are trained.")


@pytest.mark.gradients
def test_a_table_of_texts_is_a_study_without_code():
    write_table("table.csv", texts(40))
    (record,) = run(load(data=TABLE, epochs=10, noise=[{"kind": "clean"}]))
    assert record["epochs"]["accuracy"][-1] > 0.9


def test_a_backend_that_is_not_installed(monkeypatch, capsys):
    other = next(name for name in ("jax", "torch") if name != BACKEND)
    monkeypatch.setitem(sys.modules, other, None)
    path = write_study(Path("."), {"backend": other})
    with pytest.raises(SystemExit):
        main(["study", "run", str(path)])
    (line,) = capsys.readouterr().err.splitlines()
    message = f"'{other}' is not installed. Install it with: pip install {other}"
    assert message in line
    with pytest.raises(ImportError, match=message):
        run(study.load(path))
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
    "no-results": (["report", "small.toml"], "no results in results.small. Run"),
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


@pytest.mark.parametrize("missing", ["msgspec", "pandas"])
def test_only_studies_need_the_extra_of_studies(missing):
    code = f"import sys; sys.modules['{missing}'] = None; "
    code += "from keras_logitclip import {}"
    main_of = "__main__; __main__.main({})"
    tau = main_of.format(["tau", "--classes", "10", "--noise-rate", "0.4"])
    subprocesses.run_well([sys.executable, "-c", code.format(tau)])
    for other in ("study", main_of.format(["study", "run", "small.toml"])):
        ended = subprocesses.run([sys.executable, "-c", code.format(other)])
        assert ended.returncode != 0
        last = ended.stderr.splitlines()[-1]
        assert f"need {missing}, which is not installed" in last
        assert 'pip install "keras-logitclip[study]"' in last


# The documentation.


def test_the_study_files_of_the_documentation():
    page = (subprocesses.ROOT / "docs" / "studies.md").read_text()
    files = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    counts = []
    for contents in files:
        Path("documented.toml").write_text(contents)
        counts.append(_plan.count(study.load("documented.toml")))
    # Nine methods of losses have four trials, with the first of three seeds.
    assert counts == [4 * 9 * (4 + 2), 2]
