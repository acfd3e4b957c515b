"""`normalize_gradient` changes only the size of the gradient."""

import itertools
from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from tests import oracle
from tests.conftest import DTYPES
from tests.conftest import QUICKEST
from tests.oracle import INF
from tests.oracle import assert_rows_close
from tests.running import TAKES_MASKS
from tests.running import gradient_along
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp_each
from tests.samples import CLASSES
from tests.samples import ROWS
from tests.samples import logits
from tests.samples import some_labels

TAU = 2.0
Z = logits(scale=1.0)
Z[0] = 0
Z[1] *= 40
IDS, ONE_HOT = some_labels("sparse")
SOFT = some_labels("soft").given
COUNTED = np.array([True, True, False, True, True, False])


def factor(z, counted=slice(None), p=2, tau=TAU):
    """Returns 1 / mean(min(1, tau / norm)) of the counted rows."""
    norm = oracle.norm(z, p)
    return 1 / np.minimum(1, tau / np.where(norm > 0, norm, tau))[counted].mean()


def squared(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


Case = namedtuple("Case", "loss labels p", defaults=(2,))
CASES = {
    "sparse": Case("sparse_categorical_crossentropy", IDS),
    "soft": Case("categorical_crossentropy", SOFT),
    "order 1": Case("sparse_categorical_crossentropy", IDS, 1),
    "order inf": Case("sparse_categorical_crossentropy", IDS, INF),
    "robust": Case(losses.GeneralizedCrossEntropy(), IDS),
    "function": Case(squared, ONE_HOT),
}


def both_ways(case, tau=TAU, **kwargs):
    """Returns the loss as a function of the logits, without and with the argument."""
    labels = to_tensor(case.labels, case.labels.dtype.name)
    weights = kwargs.pop("sample_weight", None)

    def function(normalize):
        loss = LogitClipLoss(
            case.loss, tau, p=case.p, normalize_gradient=normalize, **kwargs
        )
        return lambda z: keras.ops.reshape(loss(labels, z, weights), (-1,))

    return {"as it is": function(False), "normalized": function(True)}


def assert_scaled(parts, expected, rtol=1e-5, name="", rounding=0.0):
    plain, normalized = parts["as it is"], parts["normalized"]
    np.testing.assert_allclose(normalized.value, plain.value, rounding, err_msg=name)
    assert np.isfinite(plain.value).all(), name
    if plain.gradient is not None:
        wanted = expected * plain.gradient.astype("float64")
        assert_rows_close(normalized.gradient, wanted, rtol, name=name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_gradient_is_divided_by_the_mean_and_values_stay(case, mode):
    # XLA may round the sums of the two functions differently.
    rounding = 2e-7 if mode in ("xla", "jit") else 0.0
    parts = each(both_ways(case), Z, mode)
    assert_scaled(parts, factor(Z, p=case.p), rounding=rounding)


def each(functions, x, mode=QUICKEST, dtype="float32"):
    """Computes each function separately, because its mean is over its own batch."""
    return {
        name: value_and_vjp_each({name: function}, x, mode, dtype)[name]
        for name, function in functions.items()
    }


@pytest.mark.gradients
def test_the_direction_is_that_of_the_float64_reference():
    function = both_ways(CASES["sparse"], reduction="sum")["normalized"]
    part = value_and_vjp_each({"": function}, Z, QUICKEST)[""]
    to_clipped = oracle.cross_entropy_gradient(IDS, oracle.clip(Z, TAU, 2))
    expected = factor(Z) * oracle.clip_vjp(Z, to_clipped, TAU, 2)
    assert_rows_close(part.gradient, expected, 5e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rows_that_do_not_count_are_not_in_the_mean(case):
    weights = to_tensor(COUNTED * np.linspace(1, 2, ROWS))
    parts = each(both_ways(case, sample_weight=weights), Z)
    assert_scaled(parts, factor(Z, COUNTED, case.p))


@pytest.mark.parametrize("axis", [-1, 1])
def test_pixels_that_do_not_count_are_not_in_the_mean(axis):
    shape = (2, ROWS // 2)
    z = np.moveaxis(Z.reshape(*shape, CLASSES), -1, axis)
    weights = to_tensor(COUNTED.reshape(shape))
    for name in ("sparse", "robust"):
        case = Case(CASES[name].loss, IDS.reshape(shape))
        if axis == 1 and name == "robust":
            case = case._replace(loss=losses.GeneralizedCrossEntropy(axis=1))
        parts = each(both_ways(case, axis=axis, sample_weight=weights), z)
        rows = {
            way: part._replace(
                gradient=None
                if part.gradient is None
                else np.moveaxis(part.gradient, axis, -1).reshape(ROWS, CLASSES)
            )
            for way, part in parts.items()
        }
        assert_scaled(rows, factor(Z, COUNTED), name=name)


def test_ignored_rows_are_not_in_the_mean():
    ids = np.where(COUNTED, IDS, -1)
    case = Case("sparse_categorical_crossentropy", ids)
    assert_scaled(each(both_ways(case, ignore_class=-1), Z), factor(Z, COUNTED))


def test_other_dtypes():
    for dtype, p in itertools.product(DTYPES, (2, 3)):
        case = CASES["sparse"]._replace(p=p)
        parts = each(both_ways(case, dtype=dtype), Z, QUICKEST, dtype)
        rounding = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-12}[dtype]
        assert_scaled(parts, factor(Z, p=p), rounding, f"{dtype}, p={p}")


def test_factors_that_half_precision_cannot_hold():
    z = (100 * np.where(Z == 0, 1, Z)).astype("float16")
    focal = keras.losses.CategoricalFocalCrossentropy(from_logits=True)
    parts = each(
        both_ways(Case(focal, ONE_HOT), tau=1e-4, dtype="float16"), z, dtype="float16"
    )
    np.testing.assert_array_equal(parts["normalized"].value, parts["as it is"].value)
    assert np.isfinite(parts["normalized"].value).all()
    plain, normalized = (
        to_numpy(LogitClip(1e-4, normalize_gradient=flag, dtype="float16")(z))
        for flag in (False, True)
    )
    np.testing.assert_array_equal(normalized, plain)


def test_nothing_to_normalize():
    """The factor is 1 if no row counts, and if nothing is clipped."""
    nothing = both_ways(CASES["sparse"], sample_weight=to_tensor(np.zeros(ROWS)))
    assert_scaled(each(nothing, Z), 1.0)
    assert_scaled(each(both_ways(CASES["sparse"], tau=1e4), Z), 1.0)
    assert_scaled(each(both_ways(CASES["sparse"], tau=INF), Z), 1.0)


@pytest.mark.gradients
@pytest.mark.parametrize("name", ["sparse", "robust"])
def test_second_derivatives_treat_the_factor_as_a_constant(name):
    rng = np.random.default_rng(0)
    direction = rng.normal(size=Z.shape).astype("float32")
    z = Z.copy()
    z[0] = 0.1
    functions = both_ways(CASES[name], reduction="none")
    plain, normalized = (
        gradient_along(function, z, np.ones(ROWS, "float32"), direction)
        for function in functions.values()
    )
    assert_rows_close(normalized, factor(z) * plain.astype("float64"), 2e-5)


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
def test_the_layer(masked, mode):
    if masked and not TAKES_MASKS:
        pytest.skip("this Keras has no masks on NumPy")
    mask = to_tensor(COUNTED, "bool") if masked else None

    def function(normalize):
        layer = LogitClip(TAU, normalize_gradient=normalize)
        return lambda z: layer(z, mask=mask)

    functions = {"as it is": function(False), "normalized": function(True)}
    parts = each(functions, Z, mode)
    assert_scaled(parts, factor(Z, COUNTED if masked else slice(None)))


@pytest.mark.gradients
def test_a_step_with_sgd_is_longer_by_the_factor():
    steps = []
    for normalize in (False, True):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES)])
        x = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
        weights = [np.full((4, CLASSES), 0.5), np.linspace(0, 5, CLASSES)]
        model.set_weights(weights)
        z = to_numpy(model(x))
        loss = LogitClipLoss("sparse_categorical_crossentropy", TAU,
                             normalize_gradient=normalize)  # fmt: skip
        model.compile(keras.optimizers.SGD(1.0), loss)
        model.train_on_batch(x, IDS)
        steps.append(model.get_weights()[1] - weights[1])
    np.testing.assert_allclose(steps[1], factor(z) * steps[0], 1e-3, 1e-6)


@pytest.mark.once
def test_it_is_saved_and_loaded():
    loss = LogitClipLoss(
        "sparse_categorical_crossentropy", 1.0, normalize_gradient=True
    )
    assert LogitClipLoss.from_config(loss.get_config()).normalize_gradient is True
    layer = LogitClip(1.0, normalize_gradient=True)
    assert LogitClip.from_config(layer.get_config()).normalize_gradient is True
    assert LogitClip(1.0).normalize_gradient is False
    makers = (
        lambda flag: LogitClip(1.0, normalize_gradient=flag),
        lambda flag: LogitClipLoss("mse", 1.0, normalize_gradient=flag),
    )
    for make in makers:
        with pytest.raises(ValueError, match="`normalize_gradient`: expected `True`"):
            make(1)
