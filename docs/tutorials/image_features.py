# %% [markdown]
# # Labels of people, and pretrained features
#
# A pretrained network turns each image into a vector, and a small head learns the
# labels that people gave to the images. People are wrong where an image is hard, so
# that their errors can be learned from the images. This tutorial chooses the learning
# rate and `tau`, and trains the head. It fits a temperature with a few labels that you
# have checked yourself, and saves one model that returns probabilities.
#
# This page was made with **small data**: the handwritten digits of scikit-learn. The
# network was trained on 400 of them and not on ImageNet, and the wrong labels are
# drawn. They depend on the image, as those of people do. The figures of real ones are
# [at the end](#the-real-data). To train on these yourself, put two files into a folder,
# and set `DATA_DIR` to it:
#
# - `features.npz`, which the example
#   [pretrained_features.py](../../examples/pretrained_features.py) makes of the images
#   of CIFAR-10, in the order of the original files;
# - `CIFAR-10_human.pt` of [CIFAR-10N](https://github.com/UCSC-REAL/cifar-10-100n) (CC
#   BY-NC 4.0: not for commercial use).
#
# ```sh
# pip install "keras-logitclip[study,tensorflow]"  # or jax, or torch
# ```

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from keras_logitclip import LogitClipLoss
from keras_logitclip import bounds
from keras_logitclip import calibration
from keras_logitclip import callbacks
from keras_logitclip import check_model
from keras_logitclip import datasets
from keras_logitclip import metrics
from keras_logitclip import noise
from keras_logitclip import tuning

DATA_DIR = os.environ.get("CIFAR10N_DIR")  # Or a folder, such as "data".
keras.utils.set_random_seed(0)
print("Keras", keras.__version__, "on", keras.config.backend())

# %% [markdown]
# ## Features
#
# A network of `keras.applications` without its last layer makes the features, once for
# each image:
#
# ```python
# network = keras.applications.EfficientNetV2B0(include_top=False, pooling="avg")
# features = network.predict(images)
# ```
#
# For the small data, a small network takes its place. It has seen 400 images with right
# labels, and none of those that follow.


# %%
def make_features(images, labels):
    """Returns the features of all images except the first 400, which it trains on."""
    layers = [keras.layers.Conv2D(16, 3, activation="relu") for _ in range(2)]
    features = keras.layers.Dense(64, activation="relu")
    layers += [keras.layers.Flatten(), features, keras.layers.Dense(10)]
    network = keras.Sequential([keras.Input(images.shape[1:]), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss)
    network.fit(images[:400], labels[:400], epochs=10, verbose=0)
    without_top = keras.Model(network.inputs, features.output)
    return without_top.predict(images[400:], verbose=0)


if DATA_DIR:
    with np.load(f"{DATA_DIR}/features.npz") as arrays:
        x, x_test = (arrays[name].astype("float32") for name in ("x_train", "x_test"))
        y, y_test = arrays["y_train"], arrays["y_test"]
else:
    digits = load_digits()
    x = make_features(digits.images[..., None] / 16, digits.target)
    (x, x_test), (y, y_test) = np.split(x, [1000]), np.split(digits.target, [1400])
    y = y[400:]

# %% [markdown]
# Each feature gets a mean of 0 and a deviation of 1 over the training images.

# %%
mean, deviation = x.mean(axis=0), x.std(axis=0)
deviation[deviation == 0] = 1
x_train, x_test = (x - mean) / deviation, (x_test - mean) / deviation

# %% [markdown]
# ## The labels
#
# The labels come as `NoisyLabels`, which have the right ones as well. Those are for
# what is shown here. The search and the training see `noisy.labels` alone.

# %%
if DATA_DIR:
    noisy = datasets.load_human_labels(f"{DATA_DIR}/CIFAR-10_human.pt", "worse", y)
else:
    noisy = noise.instance_dependent(x_train, y, 0.4, scale=1.0, seed=0)
print(noisy)

# %% [markdown]
# ## The head, checked


# %%
def build_model():
    hidden = keras.layers.Dense(256, activation="relu")
    return keras.Sequential(
        [keras.Input(x_train.shape[1:]), hidden, keras.layers.Dense(10)]
    )


model = build_model()
model.compile(
    keras.optimizers.SGD(0.01, momentum=0.9),
    LogitClipLoss("sparse_categorical_crossentropy", tau=1.5),
)
print(check_model(model, x_train, noisy.labels))

# %% [markdown]
# ## `tau` and the learning rate
#
# `search_tau` compares the rates at `tau` = 1.5, and then the other values of `tau` at
# the best rate. `inf` is the loss without clipping, which gets its own rate. The
# accuracy is that on a fifth of the training images, with the labels that they have.
#
# Read it with care: errors that can be learned from the images reward a model that
# learns them. That is in favour of plain cross-entropy, which memorizes most.

# %%
EPOCHS = 20


def make_optimizer(steps, learning_rate):
    return keras.optimizers.SGD(learning_rate, momentum=0.9)


found = tuning.search_tau(
    build_model,
    x_train,
    noisy.labels,
    taus=[0.5, 1.5, 3.0, float("inf")],
    learning_rates=[0.003, 0.01, 0.03, 0.1],
    epochs=EPOCHS,
    optimizer=make_optimizer,
    validation_split=0.2,
    study_name="head",  # Kept in head.db, so that an interrupted search goes on.
    verbose=False,
)
print(found)

# %%
found.plot()
plt.show()

# %% [markdown]
# ## Train, and watch
#
# The plain loss and the best clipped one, each at its own rate, on all noisy labels.
# The test labels are clean, and decide nothing.


# %%
def train(tau, learning_rate):
    keras.utils.set_random_seed(0)
    model = build_model()
    model.compile(
        keras.optimizers.SGD(learning_rate, momentum=0.9),
        LogitClipLoss("sparse_categorical_crossentropy", tau),  # inf: without clipping.
        metrics=["accuracy", metrics.MeanLogitNorm()],
    )
    history = model.fit(
        x_train,
        noisy.labels,
        batch_size=128,
        epochs=EPOCHS,
        validation_data=(x_test, y_test),
        callbacks=[callbacks.MemorizationMonitor(x_train, noisy)],
        verbose=0,
    )
    return model, pd.DataFrame(history.history)


def best(rows):
    row = max(rows, key=lambda row: row["accuracy"])
    return row["tau"], row["learning_rate"]


settings = {
    "plain": best(row for row in found.rows if row["tau"] == float("inf")),
    "clipped": best(row for row in found.rows if row["tau"] < float("inf")),
}
print(settings)
runs = {name: train(*pair) for name, pair in settings.items()}

# %%
for name, (_, history) in runs.items():
    accuracy = 100 * history["val_accuracy"][-5:].mean()
    memorized = 100 * history["memorized"][-5:].mean()
    print(f"{name}: {accuracy:.1f}% of the test labels, {memorized:.1f}% memorized")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for name, (_, history) in runs.items():
    axes[0].plot(history.index + 1, 100 * history["val_accuracy"], label=name)
    axes[1].plot(history.index + 1, 100 * history["memorized"], label=name)
axes[0].set(xlabel="epoch", title="Clean test labels predicted (%)")
axes[1].set(xlabel="epoch", title="Wrong training labels predicted (%)")
axes[0].legend()
plt.show()

# %% [markdown]
# ## Probabilities
#
# The softmax of the logits is no probability: beyond `tau`, their length makes no
# difference to the loss. The softmax of clipped logits is none either, because `tau`
# bounds it:

# %%
tau, _ = settings["clipped"]
model, _ = runs["clipped"]
print(f"largest probability of a clipped row: {bounds.max_probability(tau, 10):.3f}")

# %% [markdown]
# One number mends that: a temperature to divide the logits by. It is fitted to images
# whose labels you have checked yourself: a hundred will do, and a few hundred are
# better. Here they are the first 100 test images, and the other ones show what it does.
# The error is the expected calibration
# error: how far the probabilities are from the share of right predictions.

# %%
logits = model.predict(x_test, verbose=0)
temperature = calibration.fit_temperature(logits[:100], y_test[:100])
rest, y_rest = logits[100:], y_test[100:]
clipping = np.minimum(1, tau / np.linalg.norm(rest, axis=1, keepdims=True))
shown = {
    "the logits as they are": rest,
    "clipped logits": rest * clipping,
    f"divided by {temperature:.2f}": rest / temperature,
}
for name, values in shown.items():
    error = 100 * calibration.expected_calibration_error(values, y_rest)
    print(f"{name}: off by {error:.1f} points")

# %% [markdown]
# Without any checked label, `cleaning.estimate_noise` fits a temperature to the noisy
# ones, as in [the next tutorial](label_errors.py).
#
# ## Serve
#
# The scaling of the features, the head, the temperature and the softmax become one
# model.

# %%
served = keras.Sequential(
    [
        keras.Input(x_train.shape[1:]),
        keras.layers.Normalization(mean=mean, variance=deviation**2),
        model,
        keras.layers.Rescaling(1 / temperature),
        keras.layers.Softmax(),
    ]
)
served.save("served.keras")
features = x_test[:3] * deviation + mean
print(served.predict(features, verbose=0).round(2))

# %% [markdown]
# ## The real data
#
# Our [studies](../results/README.md) train the same head on 12,000 images of CIFAR-10,
# with features of a pretrained EfficientNet-Lite0 and the "worse" labels of CIFAR-10N,
# of which 41% are wrong. The rate in brackets was chosen by held-out labels of people.
# SGD has three seeds. AdamW has one, so a point says nothing there. In percent of the
# test labels:
#
# | optimizer | plain (rate) | `tau` = 1.5, rate of plain | `tau` = 1.5 (rate) |
# |---|---|---|---|
# | SGD | 70.2 (0.003) | 71.5 | 74.6 (0.01) |
# | AdamW | 69.2 (0.0003) | 74.3 | 74.3 (0.0003) |
#
# - A larger weight decay does much of the same, and both together are better still:
#   [which loss](../choosing_loss.md#what-else-one-could-do).
# - [Probabilities](../probabilities.md) has the calibration errors of more data.
