"""A process that `test_distribution` starts on PyTorch.

python -m tests.distribution.distribution_torch FOLDER

RANK and the other variables of torchrun have its rank.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from keras_logitclip import LogitClip
from tests.distribution.test_distribution import BATCH_SIZE
from tests.distribution.test_distribution import EPOCHS
from tests.distribution.test_distribution import NOISY
from tests.distribution.test_distribution import PROCESSES
from tests.distribution.test_distribution import TRAINED
from tests.distribution.test_distribution import halves
from tests.distribution.test_distribution import labels_for
from tests.distribution.test_distribution import local_part
from tests.distribution.test_distribution import make_metrics
from tests.distribution.test_distribution import monitor_once
from tests.distribution.test_distribution import prepare
from tests.distribution.test_distribution import prepare_normalized
from tests.distribution.test_distribution import save
from tests.distribution.test_distribution import save_normalized
from tests.distribution.test_distribution import weights_of
from tests.distribution.worker import INPUTS
from tests.distribution.worker import KERNELS
from tests.distribution.worker import LOSSES as LOSS_FUNCTIONS

RANK = int(os.environ["RANK"])


def whole(x):
    return x


def part(x):
    return local_part(x, RANK)


def train(module, loss, select, on_epoch_end=dict):
    """Trains a model of Keras or PyTorch on the data that `select` returns."""
    x = torch.as_tensor(select(INPUTS))
    y = torch.as_tensor(select(labels_for(loss)))
    batch_size = BATCH_SIZE * len(x) // len(INPUTS)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    metrics = make_metrics()
    history = {}
    for _ in range(EPOCHS):
        for metric in metrics:
            metric.reset_state()
        losses = []
        batches = zip(x.split(batch_size), y.split(batch_size), strict=True)
        for inputs, labels in batches:
            optimizer.zero_grad()
            logits = module(inputs)
            value = LOSS_FUNCTIONS[loss](labels, logits)
            value.backward()
            optimizer.step()
            losses.append(value.detach())
            for metric in metrics:
                metric.update_state(labels, logits.detach())
        logs = {"loss": torch.stack(losses).mean()}
        if select is part:
            torch.distributed.all_reduce(logs["loss"])
            logs["loss"] /= PROCESSES
            add_up(metrics)
        logs |= {metric.name: metric.result() for metric in metrics}
        for name, value in (logs | on_epoch_end()).items():
            history.setdefault(name, []).append(float(value))
    return history


def add_up(metrics):
    """Sums the metrics of the processes, which PyTorch does not do."""
    for metric in metrics:
        for variable in metric.variables:
            total = variable.value.detach().clone()
            torch.distributed.all_reduce(total)
            variable.assign(total)


def train_keras_model(loss, wrap, select):
    model = prepare(loss)
    module = wrap(model)
    history = train(module, loss, select, lambda: monitor_once(model))
    return {**history, **weights_of(model)}


def normalized_step():
    model = prepare_normalized()
    module = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    logits = module(torch.as_tensor(halves(INPUTS)[RANK]))
    model.loss(halves(NOISY.labels)[RANK], logits).backward()
    optimizer.step()
    return weights_of(model)


def train_sharded(loss, mesh):
    linear = [torch.nn.Linear(*kernel.shape, bias=False) for kernel in KERNELS]
    with torch.no_grad():
        for layer, kernel in zip(linear, KERNELS, strict=True):
            layer.weight.copy_(torch.as_tensor(kernel.T))
    module = torch.nn.Sequential(linear[0], torch.nn.ReLU(), linear[1], LogitClip(5.0))
    module(torch.as_tensor(INPUTS))  # Keras's layers change as modules at first.
    for layer in (*linear, module):
        fully_shard(layer, mesh=mesh)
    assert all(isinstance(weight, DTensor) for weight in module.parameters())
    history = train(module, loss, part)
    weights = [weight.full_tensor().detach().T for weight in module.parameters()]
    return {**history, **{f"weights {i}": w for i, w in enumerate(weights)}}


def shard_keras_model(mesh):
    x = torch.as_tensor(part(INPUTS)[: BATCH_SIZE // PROCESSES])
    y = torch.as_tensor(part(labels_for("sparse"))[: BATCH_SIZE // PROCESSES])
    gradients = []
    for shard in (False, True):
        model = prepare("sparse")
        if shard:
            fully_shard(model, mesh=mesh)
        model.loss(y, model(x)).backward()
        gradients.append(model.trainable_variables[0].value.grad)
    sharded = [p for p in model.parameters() if isinstance(p, DTensor)]
    return {
        "own gradient": gradients[0],
        "gradient": gradients[1],
        "sharded parameters": len(sharded),
        "sharded parameters with a gradient": sum(p.grad is not None for p in sharded),
    }


def main(folder):
    if RANK == 0:
        single = {loss: train_keras_model(loss, whole, whole) for loss in TRAINED}
        save(folder, "single", single)
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (PROCESSES,))
    replicated = {
        loss: train_keras_model(loss, DistributedDataParallel, part) for loss in TRAINED
    }
    save(folder, f"data-parallel-{RANK}", replicated)
    found = normalized_step()
    if RANK == 0:
        save_normalized(folder, found)
    sharded = {loss: train_sharded(loss, mesh) for loss in TRAINED}
    if RANK == 0:
        save(folder, "fully-sharded", sharded)
    save(folder, f"keras-fully-sharded-{RANK}", {"sparse": shard_keras_model(mesh)})
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
