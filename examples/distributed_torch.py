"""Trains in several processes with PyTorch, with a part of each batch in each.

    python examples/distributed_torch.py

It starts two processes on this machine. With several machines, start it with torchrun
on each, which tells every process its rank:

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d \\
        --rdzv-endpoint HOST:29500 examples/distributed_torch.py

Here the processes compute on the CPU and exchange gradients with gloo. With GPUs, set
KERAS_TORCH_DEVICE to the GPU of each process and use nccl.

`DistributedDataParallel` averages the gradients of the processes. Each has the same
number of samples, so a step is the same as a step of the whole batch in one process. Do
not use `fully_shard` with a Keras model (Keras 3.15): it would continue with its old
weights, and its gradients would stay in their process.
"""

import argparse
import os
import socket

os.environ["KERAS_BACKEND"] = "torch"

import keras
import noisy_digits
import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from keras_logitclip import LogitClipLoss
from keras_logitclip import noise

PROCESSES = 2
BATCH_SIZE = 64


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tau", type=float, default=1.0, help="clipping threshold")
    parser.add_argument("--noise-rate", type=float, default=0.4)
    return parser.parse_args()


def train_as_process(rank, port, arguments):
    """Sets the environment variables that torchrun would set, and trains."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(PROCESSES),
        "RANK": str(rank),
    }
    train(arguments)


def train(arguments):
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    processes = torch.distributed.get_world_size()
    # With the same seed, all processes know the noise and the order of each epoch.
    keras.utils.set_random_seed(0)
    digits = noisy_digits.load()
    noisy = noise.symmetric(
        digits.y_train, arguments.noise_rate, noisy_digits.NUM_CLASSES, seed=0
    )
    model = noisy_digits.build_model()
    replica = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(replica.parameters(), 0.1, momentum=0.9)
    loss = LogitClipLoss("sparse_categorical_crossentropy", tau=arguments.tau)
    rng = np.random.default_rng(0)
    if rank == 0:
        print(f"Training {arguments.epochs} epochs in {processes} processes ...")
    for _ in range(arguments.epochs):
        order = rng.permutation(len(noisy.labels))
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE][rank::processes]
            optimizer.zero_grad()
            logits = replica(torch.as_tensor(digits.x_train[rows]))
            loss(torch.as_tensor(noisy.labels[rows]), logits).backward()
            optimizer.step()
    if rank == 0:
        predicted = model.predict(digits.x_test, verbose=0).argmax(axis=-1)
        print(f"test accuracy: {(predicted == digits.y_test).mean():.1%}")
    # A replica that outlives its process group may wait forever for a thread of the
    # group, which waits for Python's lock (PyTorch 2.13).
    del replica
    # If a process ends before the others, they may wait for it forever.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    arguments = parse_arguments()
    if "RANK" in os.environ:
        train(arguments)
    else:
        torch.multiprocessing.spawn(
            train_as_process, (free_port(), arguments), PROCESSES
        )


if __name__ == "__main__":
    main()
