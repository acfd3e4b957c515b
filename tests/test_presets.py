import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip.losses import presets
from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.losses.presets import preset
from tests.running import to_numpy

NAMES = (
    "CE", "Focal", "FL", "MAE", "GCE", "RCE", "SCE", "PHuber-CE", "PHuber-GCE",
    "Taylor-CE", "NCE", "NFL", "NGCE", "NCE+RCE", "NCE+MAE", "NFL+RCE", "NFL+MAE",
    "AGCE", "AUL", "AEL", "NCE+AGCE", "NCE+AUL", "NCE+AEL", "ANL-CE", "ANL-FL", "JS",
    "CORES", "Bootstrap-soft", "Bootstrap-hard", "Bi-tempered", "LogitNorm",
)  # fmt: skip
rng = np.random.default_rng(0)
INPUTS = rng.normal(size=(16, 8)).astype("float32")


def labels(kind, classes):
    ids = np.random.default_rng(1).integers(0, classes, 16)
    return {
        "sparse": ids,
        "column": ids[:, None],
        "one-hot": np.eye(classes, dtype="float32")[ids],
    }[kind]


def test_every_name_has_a_preset_and_a_reference():
    assert set(NAMES) == {*PRESETS, "FL"}
    for each in PRESETS.values():
        assert each.reference.startswith("https://")


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
@pytest.mark.parametrize("name", NAMES)
def test_training(name, kind):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.01), preset(name, 10), jit_compile=False)
    for _ in range(2):
        assert np.isfinite(model.train_on_batch(INPUTS, labels(kind, 10)))
    after = model.get_weights()
    assert np.isfinite(after[0]).all()
    assert (before[0] != after[0]).any()


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_labels_of_every_kind_mean_the_same(name, classes):
    z = 3 * np.random.default_rng(2).normal(size=(16, classes)).astype("float32")
    values = [
        to_numpy(preset(name, classes)(labels(kind, classes), z))
        for kind in ("sparse", "column", "one-hot")
    ]
    assert np.isfinite(values[0])
    np.testing.assert_allclose(values[1:], values[0], rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("name", NAMES)
def test_saving_alone_and_inside_logit_clip(name, classes):
    z = rng.normal(size=(16, classes)).astype("float32")
    for loss in (preset(name, classes), LogitClipLoss(preset(name, classes), 1.0)):
        config = keras.saving.serialize_keras_object(loss)
        clone = keras.saving.deserialize_keras_object(config)
        assert clone.get_config() == loss.get_config()
        given = labels("sparse", classes)
        assert to_numpy(clone(given, z)) == to_numpy(loss(given, z))


def test_mean_absolute_error_is_halved_where_the_paper_halves_it():
    z = 3 * rng.normal(size=(16, 10)).astype("float32")
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    ids = labels("sparse", 10)
    p_y = p[np.arange(16), ids]
    nce = np.log(p_y) / np.log(p).sum(-1)
    expected = {
        "MAE": 2 * (1 - p_y),
        "NCE+MAE": nce + (1 - p_y),
        "NCE+RCE": nce - np.log(1e-4) * (1 - p_y),
    }
    for name, losses in expected.items():
        value = to_numpy(preset(name, 10)(ids, z))
        np.testing.assert_allclose(value, losses.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("classes", "alpha"), [(2, 1), (10, 1), (31, 1), (32, 10), (100, 10), (1000, 10)]
)
def test_values_go_by_the_number_of_classes(classes, alpha):
    assert preset("NCE+RCE", classes).alpha == alpha


def test_names_are_found_in_lower_case_and_name_the_loss():
    assert preset("anl-fl", 10).name == "anl_fl"
    assert preset("fl", 10).name == preset("FOCAL", 10).name == "focal"


def test_building_a_preset_leaves_the_table_as_it_is():
    before = repr(presets.PRESETS)
    preset("NCE+AUL", 10)
    assert repr(presets.PRESETS) == before


@pytest.mark.parametrize("name", ["", "CCE", "NCE + RCE", None, 1])
def test_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"`name`: expected .*'NCE\+RCE'.*Received"):
        preset(name, 10)


@pytest.mark.parametrize("classes", [1, 0, 10.0, None, True, "10"])
def test_bad_numbers_of_classes(classes):
    with pytest.raises(ValueError, match="`num_classes`: expected .* Received"):
        preset("CE", classes)
