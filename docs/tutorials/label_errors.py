# %% [markdown]
# # Find and mend wrong labels
#
# How many of my labels are wrong, which ones, and what do I do about them? This
# tutorial predicts each sample with a model that was not trained on it. It estimates
# the noise, shows the suspicious images, and trains again without them. No clean labels
# are needed.
#
# This page was made with **small data**: the handwritten digits of scikit-learn, 1,437
# of them to train on. 30% of these get the label of the next digit. Which labels are
# wrong is known here, and only checks the answers. [Cleaning labels](../cleaning.md)
# has the figures of other data.
#
# For images of your own, put a file `images.npz` into a folder, and set `DATA_DIR` to
# the folder. The file has the arrays `x_train` and `y_train`, and `x_test` and `y_test`
# with labels that you have checked.
#
# ```sh
# pip install "keras-logitclip[cleaning,study,tensorflow]"  # or jax, or torch
# ```

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_logitclip import LogitClipLoss
from keras_logitclip import calibration
from keras_logitclip import check_model
from keras_logitclip import cleaning
from keras_logitclip import metrics
from keras_logitclip import noise
from keras_logitclip import tuning

DATA_DIR = os.environ.get("IMAGES_DIR")  # Or a folder, such as "data".
keras.utils.set_random_seed(0)
print("Keras", keras.__version__, "on", keras.config.backend())

# %% [markdown]
# ## The data

# %%
if DATA_DIR:
    with np.load(f"{DATA_DIR}/images.npz") as arrays:
        images, y_train = arrays["x_train"], arrays["y_train"]
        x_test, y_test = arrays["x_test"], arrays["y_test"]
    wrong = None  # Nobody knows.
else:
    digits = load_digits()
    images, x_test, clean, y_test = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=0
    )
    noisy = noise.pair_flip(clean, 0.3, 10, seed=0)
    y_train, wrong = noisy.labels, noisy.flipped
    print(noisy)
num_classes = int(y_train.max()) + 1
largest = images.max()
x_train, x_test = (part.astype("float32") / largest for part in (images, x_test))


def build_model():
    layers = [keras.layers.Flatten(), keras.layers.Dense(256, activation="relu")]
    outputs = keras.layers.Dense(num_classes)
    return keras.Sequential([keras.Input(x_train.shape[1:]), *layers, outputs])


# %% [markdown]
# `check_model` says before any training whether model, loss and labels fit each other.

# %%
model = build_model()
loss = LogitClipLoss("sparse_categorical_crossentropy", tau=1.5)
model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
print(check_model(model, x_train, y_train))

# %% [markdown]
# ## The learning rate
#
# A model that has memorized the wrong labels finds none of them. So the learning rate
# is the first thing to set, by the accuracy on held-out labels. These are as noisy as
# the others. `tau` stays at 1.5, the default. Rates above 0.3 are left out here,
# because plain cross-entropy, which has the same rate below, can diverge with them.

# %%
EPOCHS = 20


def make_optimizer(steps, learning_rate):
    return keras.optimizers.SGD(learning_rate, momentum=0.9)


found = tuning.search_tau(
    build_model,
    x_train,
    y_train,
    taus=[1.5],
    learning_rates=[0.03, 0.1, 0.3],
    epochs=EPOCHS,
    optimizer=make_optimizer,
    validation_split=0.2,
    study_name="rates",  # Kept in rates.db, so that an interrupted search goes on.
    verbose=False,
)
print(found)
rate = found.best_learning_rate

# %% [markdown]
# ## Predict each sample with a model that has not seen it
#
# That takes five trainings, on four fifths of the samples each. What is done is kept in
# the folder `held_out_logits`, so that an interrupted call goes on.

# %%
held_out = cleaning.held_out_logits(
    build_model,
    x_train,
    y_train,
    epochs=EPOCHS,
    optimizer=keras.optimizers.SGD(rate, momentum=0.9),
    verbose=False,
)

# %% [markdown]
# ## How many are wrong?
#
# The estimate has the rate with an interval, and the classes whose labels are wrong
# most often. Read the rate as an upper end: where the model is wrong, a right label
# looks wrong.

# %%
estimate = cleaning.estimate_noise(y_train, held_out)
print(estimate)

# %%
estimate.plot()
plt.show()

# %% [markdown]
# ## Which ones?

# %%
errors = cleaning.find_label_errors(y_train, held_out)
print(errors)

# %% [markdown]
# Look at them before you drop them, because some are right. Each image has its given
# label, and the label that the model suggests.

# %%
errors.plot(images, count=16)
plt.show()

# %% [markdown]
# `errors.to_csv("errors.csv")` writes the list for those who check it. How good it is
# can be said here, where the wrong labels are known:

# %%
if wrong is not None:
    right = 100 * wrong[errors.indices].mean()
    missed = 100 * (wrong & errors.keep).sum() / wrong.sum()
    print(f"{right:.1f}% of what was found is wrong")
    print(f"{missed:.1f}% of the wrong labels were not found")

# %% [markdown]
# ## Train again without them
#
# Four trainings at the rate that was found: plain cross-entropy and clipping, each with
# all labels and without those that were found. The rate was chosen for the clipped
# loss, so this shows what dropping labels does, and not which loss is better. Keep the
# clipped loss, because not all wrong labels are found.


# %%
def train(tau, keep):
    keras.utils.set_random_seed(0)
    model = build_model()
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9),
        LogitClipLoss("sparse_categorical_crossentropy", tau),  # inf: without clipping.
        metrics=["accuracy", metrics.ClippedFraction(tau=1.5)],
    )
    history = model.fit(
        x_train[keep],
        y_train[keep],
        batch_size=128,
        epochs=EPOCHS,
        validation_data=(x_test, y_test),
        verbose=0,
    )
    return model, pd.DataFrame(history.history)


everything = np.ones(len(y_train), bool)
runs = {
    "plain, all labels": train(float("inf"), everything),
    "plain, without errors": train(float("inf"), errors.keep),
    "clipped, all labels": train(1.5, everything),
    "clipped, without errors": train(1.5, errors.keep),
}
for name, (_, history) in runs.items():
    accuracy = 100 * history["val_accuracy"][-5:].mean()
    print(f"{name}: {accuracy:.1f}% of the test labels")

# %%
figure, ax = plt.subplots(layout="constrained")
for name, (_, history) in runs.items():
    ax.plot(history.index + 1, 100 * history["val_accuracy"], label=name)
ax.set(xlabel="epoch", title="Clean test labels predicted (%)")
ax.legend()
plt.show()

# %% [markdown]
# Here, dropping what was found helps both losses. The plain one gains most, because it
# memorizes most. On other data, the clipped loss gains half a point or nothing, and on
# CIFAR-10 with labels of people it loses half a point: [how well it
# works](../cleaning.md#how-well-it-works).
#
# ## Probabilities without clean labels
#
# The softmax of the logits says little about how often the model is right. The estimate
# of the noise has a temperature to divide them by, which was fitted to the noisy labels
# and their transition matrix. The error below is the expected calibration error: how
# far the probabilities are from the share of right predictions.

# %%
model, _ = runs["clipped, all labels"]
logits = model.predict(x_test, verbose=0)
for name, values in {
    "the logits as they are": logits,
    f"divided by {estimate.temperature:.2f}": logits / estimate.temperature,
}.items():
    error = 100 * calibration.expected_calibration_error(values, y_test)
    print(f"{name}: off by {error:.1f} points")

# %% [markdown]
# The temperature becomes a layer, so that one model is saved, or
# [exported](../works_with.md).

# %%
scaling = keras.layers.Rescaling(1 / estimate.temperature)
served = keras.Sequential([model, scaling, keras.layers.Softmax()])
served.save("served.keras")
