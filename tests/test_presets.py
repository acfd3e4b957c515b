import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from keras_logitclip.losses import PRESETS
from keras_logitclip.losses import preset
from tests import loss_cases
from tests.conftest import MODES
from tests.running import apply_each
from tests.running import to_numpy
from tests.running import value_and_vjp_each
from tests.running import with_labels
from tests.samples import logits
from tests.samples import some_labels

NAMES = (*PRESETS, "FL")


def functions(kind, classes=10):
    """All presets with labels of this kind, as functions of the logits."""
    labels = some_labels(kind, classes=classes).given
    return {name: with_labels(preset(name, classes).call, labels) for name in NAMES}


@pytest.mark.once
def test_every_preset_has_a_reference():
    for each in PRESETS.values():
        assert each.reference.startswith("https://")


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
def test_every_preset_has_a_gradient(kind):
    parts = value_and_vjp_each(functions(kind), logits(), MODES[0])
    for name, part in parts.items():
        assert np.isfinite(part.value).all(), name
        assert np.isfinite(part.gradient).all(), name
        assert (part.gradient != 0).any(-1).all(), name


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
def test_training(kind):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.01), preset("ANL-FL", 10), jit_compile=False)
    for _ in range(2):
        loss = model.train_on_batch(logits(6, 8), some_labels(kind).given)
        assert np.isfinite(loss)
    after = model.get_weights()
    assert np.isfinite(after[0]).all()
    assert (before[0] != after[0]).any()


# The number of classes does not depend on the backend.
FEW_AND_MANY = [
    10, *(pytest.param(classes, marks=pytest.mark.once) for classes in (2, 100, 1000))
]  # fmt: skip


@pytest.mark.parametrize("classes", FEW_AND_MANY)
def test_labels_of_every_kind_mean_the_same(classes):
    of_ids, *of_others = (
        apply_each(functions(kind, classes), logits(6, classes))
        for kind in ("sparse", "column", "one-hot")
    )
    for name, values in of_ids.items():
        assert np.isfinite(values).all(), name
        for others in of_others:
            np.testing.assert_allclose(
                others[name], values, rtol=1e-5, atol=1e-6, err_msg=name
            )


@pytest.mark.once
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("name", NAMES)
def test_saving_alone_and_inside_logit_clip(name, classes):
    z, labels = logits(6, classes), some_labels("sparse", classes=classes).given
    for loss in (preset(name, classes), LogitClipLoss(preset(name, classes), 1.0)):
        config = keras.saving.serialize_keras_object(loss)
        clone = keras.saving.deserialize_keras_object(config)
        assert clone.get_config() == loss.get_config()
        assert to_numpy(clone(labels, z)) == to_numpy(loss(labels, z))


@pytest.mark.once
def test_mean_absolute_error_is_halved_where_the_paper_halves_it():
    z, labels = logits(), some_labels("sparse")
    half = loss_cases.value(loss_cases.mean_absolute_error, labels.weights, z) / 2
    nce = loss_cases.value(loss_cases.normalized_cross_entropy, labels.weights, z)
    expected = {
        "MAE": 2 * half,
        "NCE+MAE": nce + half,
        "NCE+RCE": nce - np.log(1e-4) * half,
    }
    for name, values in expected.items():
        value = to_numpy(preset(name, 10)(labels.given, z))
        np.testing.assert_allclose(value, values.mean(), rtol=1e-5, err_msg=name)


@pytest.mark.once
@pytest.mark.parametrize(
    ("classes", "alpha"), [(2, 1), (10, 1), (31, 1), (32, 10), (100, 10), (1000, 10)]
)
def test_values_go_by_the_number_of_classes(classes, alpha):
    assert preset("NCE+RCE", classes).alpha == alpha


@pytest.mark.once
def test_names_are_found_in_lower_case_and_name_the_loss():
    assert preset("anl-fl", 10).name == "anl_fl"
    assert preset("fl", 10).name == preset("FOCAL", 10).name == "focal"


@pytest.mark.once
def test_building_a_preset_leaves_the_table_as_it_is():
    before = repr(losses.PRESETS)
    preset("NCE+AUL", 10)
    assert repr(losses.PRESETS) == before


@pytest.mark.once
@pytest.mark.parametrize("name", ["", "CCE", "NCE + RCE", None, 1])
def test_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"`name`: expected .*'NCE\+RCE'.*Received"):
        preset(name, 10)


@pytest.mark.once
@pytest.mark.parametrize("classes", [1, 0, 10.0, None, True, "10"])
def test_bad_numbers_of_classes(classes):
    with pytest.raises(ValueError, match="`num_classes`: expected .* Received"):
        preset("CE", classes)
