"""Uses `LogitClipLoss` in a custom training loop, on each backend.

    KERAS_BACKEND=jax python examples/custom_training_loop.py

There is a loop for each backend of Keras. The loss is called like a function, inside
the compiled and differentiated step.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import noisy_digits
import numpy as np

from keras_logitclip import LogitClipLoss


def train_tensorflow(model, loss_fn, optimizer, batches, epochs):
    import tensorflow as tf

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    for epoch in range(epochs):
        report(epoch, [train_step(x, y) for x, y in one_epoch(batches)])


def train_jax(model, loss_fn, optimizer, batches, epochs):
    import jax

    def compute_loss(trainable, non_trainable, x, y):
        logits, non_trainable = model.stateless_call(
            trainable, non_trainable, x, training=True
        )
        return loss_fn(y, logits), non_trainable

    compute_gradients = jax.value_and_grad(compute_loss, has_aux=True)

    @jax.jit
    def train_step(state, x, y):
        trainable, non_trainable, slots = state
        (loss, non_trainable), gradients = compute_gradients(
            trainable, non_trainable, x, y
        )
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return (trainable, non_trainable, slots), loss

    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
    )
    state = tuple([variable.value for variable in group] for group in variables)
    for epoch in range(epochs):
        losses = []
        for x, y in one_epoch(batches):
            state, loss = train_step(state, x, y)
            losses.append(loss)
        report(epoch, losses)

    # The model itself has not changed so far.
    for group, values in zip(variables, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)


def train_torch(model, loss_fn, optimizer, batches, epochs):
    import torch

    def train_step(x, y):
        model.zero_grad()
        loss = loss_fn(y, model(x, training=True))
        loss.backward()
        variables = model.trainable_variables
        gradients = [variable.value.grad for variable in variables]
        with torch.no_grad():
            optimizer.apply(gradients, variables)
        return loss.detach()

    for epoch in range(epochs):
        report(epoch, [train_step(x, y) for x, y in one_epoch(batches)])


TRAIN = {"tensorflow": train_tensorflow, "jax": train_jax, "torch": train_torch}


def one_epoch(batches):
    for index in range(len(batches)):
        yield batches[index]
    batches.on_epoch_end()


def report(epoch, losses):
    mean = np.mean([keras.ops.convert_to_numpy(loss) for loss in losses])
    print(f"epoch {epoch + 1}: loss {mean:.4f}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tau", type=float, default=1.0, help="clipping threshold")
    parser.add_argument("--noise-rate", type=float, default=0.4)
    arguments = parser.parse_args()
    if keras.config.backend() not in TRAIN:
        parser.error(f"expected KERAS_BACKEND to be one of {', '.join(TRAIN)}")
    return arguments


def main():
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    digits = noisy_digits.load()
    labels = noisy_digits.flip_symmetric(digits.y_train, arguments.noise_rate, rng)
    batches = noisy_digits.Batches(digits.x_train, labels, seed=arguments.seed)
    model = noisy_digits.build_model()
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    # Slots cannot be created inside a compiled step.
    optimizer.build(model.trainable_variables)
    loss_fn = LogitClipLoss("sparse_categorical_crossentropy", tau=arguments.tau)

    backend = keras.config.backend()
    print(f"Training {arguments.epochs} epochs with a loop for {backend} ...")
    TRAIN[backend](model, loss_fn, optimizer, batches, arguments.epochs)

    predicted = model.predict(digits.x_test, verbose=0).argmax(axis=-1)
    print(f"test accuracy: {np.mean(predicted == digits.y_test):.1%}")


if __name__ == "__main__":
    main()
