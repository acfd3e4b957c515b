"""Compares functions of logits on the current backend, forward and backward.

A script names its candidates in a `Benchmark` and calls `main`. For each shape, dtype
and mode (eager or compiled), the harness measures

- the time of the values and of their gradient with respect to the logits. The
  candidates take turns, so that other load of the machine affects all of them;
- the peak memory beyond logits, labels and gradient, in multiples of the logits. JAX's
  compiler reports it, other backends report that of a GPU. On CPUs, it is the growth of
  the memory of a new process.

It appends the results to a CSV file and prints tables of the newest ones.
"""

import argparse
import csv
import ctypes
import datetime
import functools
import gc
import importlib
import importlib.metadata
import os
import platform
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
PACKAGE = "keras_logitclip"
MODES = {
    "torch": ("eager", "compile"),
    "tensorflow": ("graph", "xla"),
    "jax": ("jit",),
}
DTYPES = ("float16", "bfloat16", "float32", "float64")
# For smaller logits, other memory of the process dominates.
MEMORY_FROM_BYTES = 8_000_000
# Makes glibc return freed buffers of at least this size to the system, and makes
# TensorFlow use glibc instead of its pool. Otherwise the measured call would reuse
# memory of the warm-up and seem to need none.
RETURN_BUFFERS = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1",
}
COLUMNS = (
    "date",
    "commit",
    "device",
    "python",
    "keras",
    "backend",
    "backend_version",
    "numpy",
    PACKAGE,
    "mode",
    "dtype",
    "rows",
    "classes",
    "candidate",
    "median_ms",
    "p20_ms",
    "p80_ms",
    "rounds",
    "ratio_to_keras",
    "extra_memory",
)


class Benchmark(NamedTuple):
    """Describes the comparison of a script `benchmarks/<name>.py`.

    `make_candidate(name)` returns a function of labels and logits, tensors of the
    current backend, that returns the mean loss. It may import Keras. Ratios are
    relative to the candidate `"keras"`.
    """

    name: str
    description: str
    candidates: tuple[str, ...]
    make_candidate: Callable[[str], Callable]
    shapes: tuple[tuple[int, int], ...]
    dtypes: tuple[str, ...] = ("float32", "bfloat16")


class Case(NamedTuple):
    """Describes inputs and mode of a comparison of all candidates."""

    rows: int
    classes: int
    dtype: str
    mode: str

    def __str__(self):
        return f"{self.rows}x{self.classes} {self.dtype} {self.mode}"

    @property
    def logits_bytes(self):
        bits = int(self.dtype.removeprefix("b").removeprefix("float"))
        return self.rows * self.classes * bits // 8


class Step(NamedTuple):
    """Holds a forward and backward pass that waits for its result."""

    run: Callable
    # Known in advance if the compiler reports it.
    temporary_bytes: int | None = None


class Durations(NamedTuple):
    """Holds durations in milliseconds."""

    median: float
    p20: float
    p80: float
    rounds: int


def main(benchmark):
    parser = make_parser(benchmark)
    arguments = parser.parse_args()
    use_cores(arguments.cores)
    if not arguments.report:
        backend = current_backend(parser)
        cases = make_cases(backend, arguments, parser)
        if arguments.memory_of:
            print(measure_peak_growth(backend, benchmark, arguments.memory_of, cases))
            return
        measure_all(backend, benchmark, cases, arguments, parser)
    if not arguments.csv.exists():
        parser.error(f"--report expected a file with results at {arguments.csv}")
    print(format_report(read_rows(arguments.csv), benchmark.candidates))


def make_parser(benchmark):
    parser = argparse.ArgumentParser(description=benchmark.description)
    parser.add_argument(
        "--shapes",
        type=parse_shapes,
        default=benchmark.shapes,
        help="rows x classes, as in 2048x1000,512x32000",
    )
    modes = tuple(mode for of_backend in MODES.values() for mode in of_backend)
    for option, default, choices in (
        ("--dtypes", benchmark.dtypes, DTYPES),
        ("--modes", modes, modes),
        ("--candidates", benchmark.candidates, benchmark.candidates),
    ):
        parser.add_argument(
            option,
            type=make_names_parser(choices),
            default=default,
            help=f"some of {','.join(choices)}",
        )
    parser.add_argument(
        "--rounds", type=parse_positive(int), help="a fixed number of rounds"
    )
    parser.add_argument(
        "--seconds",
        type=parse_positive(float),
        default=2.0,
        help="time per candidate, which sets the rounds within 7 and 200",
    )
    add_cores(parser)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--csv",
        type=Path,
        default=ROOT / "benchmarks" / "results" / f"{benchmark.name}.csv",
        help="where results are appended, and read for the tables",
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing, print the tables"
    )
    # How the harness starts the process that measures memory.
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser


def add_cores(parser):
    parser.add_argument(
        "--cores",
        type=parse_positive(int),
        help="number of cores to use (default: all)",
    )


def use_cores(count):
    """Limits the cores of this process and its children, before backends start."""
    if count is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def parse_shapes(text):
    try:
        shapes = tuple(tuple(map(int, shape.split("x"))) for shape in text.split(","))
    except ValueError:
        shapes = ()
    if not shapes or any(len(shape) != 2 or min(shape) < 1 for shape in shapes):
        raise argparse.ArgumentTypeError(
            f"expected shapes such as 2048x1000,512x32000, received {text!r}"
        )
    return shapes


def make_names_parser(choices):
    def parse_names(text):
        names = tuple(text.split(","))
        if not set(names) <= set(choices):
            raise argparse.ArgumentTypeError(
                f"expected some of {','.join(choices)}, received {text!r}"
            )
        return names

    return parse_names


def parse_positive(kind):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not value > 0:
            raise argparse.ArgumentTypeError(
                f"expected a positive {kind.__name__}, received {text!r}"
            )
        return value

    return parse


def current_backend(parser):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # More threads would start processes that import torch while the first case is
    # timed.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    # Imported first, because its error names a missing backend. Not imported at the
    # top, because `--report` works without a backend.
    importlib.import_module(PACKAGE)
    import keras

    backend = keras.config.backend()
    if backend not in MODES:
        parser.error(
            f"expected KERAS_BACKEND to be one of {', '.join(MODES)}, "
            f"received {backend}"
        )
    return backend


def make_cases(backend, arguments, parser):
    modes = [mode for mode in MODES[backend] if mode in arguments.modes]
    if not modes:
        parser.error(
            f"--modes expected some of {','.join(MODES[backend])} on {backend}, "
            f"received {','.join(arguments.modes)}"
        )
    return [
        Case(*shape, dtype, mode)
        for shape in arguments.shapes
        for dtype in arguments.dtypes
        for mode in modes
    ]


def measure_all(backend, benchmark, cases, arguments, parser):
    # Checked before the first measurements.
    if arguments.csv.exists():
        with arguments.csv.open(newline="") as file:
            header = next(csv.reader(file), None)
        if header not in (None, list(COLUMNS)):
            parser.error(
                f"--csv expected a file with the columns {','.join(COLUMNS)}, "
                f"received {arguments.csv} with {','.join(header)}"
            )
    environment = describe_environment(backend)
    for case in cases:
        rows = measure(backend, benchmark, case, arguments)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        append_rows(
            arguments.csv,
            [{"date": now, **environment, **case._asdict(), **row} for row in rows],
        )


def measure(backend, benchmark, case, arguments):
    """Returns a row for each candidate that runs."""
    log(f"{backend} {case}")
    steps = prepare_all(backend, benchmark, case, arguments.candidates)
    durations = time_alternating(steps, arguments.rounds, arguments.seconds)
    measures_memory = arguments.memory and case.logits_bytes >= MEMORY_FROM_BYTES
    rows = []
    for name, step in steps.items():
        time_of, reference = durations[name], durations.get("keras")
        ratio = time_of.median / reference.median if reference else None
        memory = None
        if measures_memory:
            memory = measure_extra_memory(backend, benchmark, name, case, step)
        log(
            f"  {name}: {time_of.median:.3f} ms "
            f"({time_of.p20:.3f} to {time_of.p80:.3f}), "
            f"{format_ratio(ratio)} of keras, extra memory {format_ratio(memory)}"
        )
        rows.append(make_row(name, time_of, ratio, memory))
    return rows


def prepare_all(backend, benchmark, case, names):
    """Returns the compiled `Step` of each candidate that runs."""
    start_case(backend)
    labels, logits = make_inputs(case)
    steps = {}
    for name in names:
        # A candidate may fail with any error of its backend. The others continue.
        try:
            function = benchmark.make_candidate(name)
            step = PREPARE[backend](function, labels, logits, case.mode)
            step.run()
        except Exception as error:
            log(f"  {name}: left out, {first_line(error)}")
        else:
            steps[name] = step
    return steps


def make_row(name, durations, ratio, memory):
    return {
        "candidate": name,
        "median_ms": f"{durations.median:.4f}",
        "p20_ms": f"{durations.p20:.4f}",
        "p80_ms": f"{durations.p80:.4f}",
        "rounds": durations.rounds,
        "ratio_to_keras": "" if ratio is None else f"{ratio:.4f}",
        "extra_memory": "" if memory is None else f"{memory:.4f}",
    }


def make_inputs(case):
    from keras import ops

    labels, logits = random_arrays(case.rows, case.classes)
    logits = ops.cast(ops.convert_to_tensor(logits), case.dtype)
    return ops.convert_to_tensor(labels), logits


@functools.lru_cache(maxsize=1)
def random_arrays(rows, classes):
    """Returns labels and logits. Half a billion logits take seconds to draw."""
    generator = np.random.default_rng(0)
    logits = 3 * generator.standard_normal((rows, classes), "float32")
    return generator.integers(classes, size=rows, dtype="int32"), logits


def start_case(backend):
    gc.collect()
    if backend == "torch":
        import torch

        # Otherwise the second shape would be compiled for unknown sizes.
        torch._dynamo.reset()
        # Keras's code causes this warning at every compilation.
        warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru")
    if backend == "tensorflow":
        import tensorflow as tf

        # TensorFlow warns because all candidates seem to be one function that is
        # retraced.
        tf.get_logger().setLevel("ERROR")


def prepare_torch(function, labels, logits, mode):
    import torch

    if mode == "compile":
        function = torch.compile(function, fullgraph=True)
    logits = logits.detach().requires_grad_()
    on_gpu = logits.is_cuda

    def run():
        value = function(labels, logits)
        # Not `value.backward()`, which would add to the gradient of the last call.
        (gradient,) = torch.autograd.grad(value, logits)
        if on_gpu:
            torch.cuda.synchronize()
        return value, gradient

    return Step(run)


def prepare_tensorflow(function, labels, logits, mode):
    import tensorflow as tf

    on_gpu = bool(tf.config.list_logical_devices("GPU"))

    @tf.function(jit_compile=mode == "xla")
    def value_and_gradient(labels, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = function(labels, logits)
        return value, tape.gradient(value, logits)

    def run():
        result = value_and_gradient(labels, logits)
        # A CPU has finished already, and a synchronization would cost time.
        if on_gpu:
            tf.test.experimental.sync_devices()
        return result

    return Step(run)


def prepare_jax(function, labels, logits, mode):
    import jax

    value_and_gradient = jax.value_and_grad(function, argnums=1)
    compiled = jax.jit(value_and_gradient).lower(labels, logits).compile()

    def run():
        return jax.block_until_ready(compiled(labels, logits))

    return Step(run, compiled.memory_analysis().temp_size_in_bytes)


PREPARE = {
    "torch": prepare_torch,
    "tensorflow": prepare_tensorflow,
    "jax": prepare_jax,
}


def time_alternating(steps, rounds, seconds):
    """Runs every step once per round and returns the `Durations` of each."""
    if not steps:
        return {}
    # The first run compiled. This run measures the duration.
    slowest = max(time_once(step) for step in steps.values())
    if rounds is None:
        rounds = min(max(int(1000 * seconds / slowest), 7), 200)
    times = {name: [] for name in steps}
    # Shuffled, because in a fixed order each candidate would follow the same one and
    # find its caches.
    shuffle = random.Random(0).sample
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name in shuffle(list(steps), len(steps)):
            times[name].append(time_once(steps[name]))
    gc.enable()
    return {name: summarize(times[name]) for name in steps}


def time_once(step):
    """Returns the milliseconds of a run, without the release of its result."""
    start = time.perf_counter_ns()
    result = step.run()
    end = time.perf_counter_ns()
    del result
    return (end - start) / 1e6


def summarize(times):
    p20, p80 = np.quantile(times, [0.2, 0.8])
    return Durations(statistics.median(times), p20, p80, len(times))


def measure_extra_memory(backend, benchmark, name, case, step):
    """Returns the peak beyond inputs and gradient, in multiples of the logits."""
    if step.temporary_bytes is not None:
        return step.temporary_bytes / case.logits_bytes
    if gpu_name(backend):
        peak_growth = {"torch": torch_gpu_growth, "tensorflow": tensorflow_gpu_growth}
        return peak_growth[backend](step) / case.logits_bytes - 1
    command = [sys.executable, "-m", f"benchmarks.{benchmark.name}"]
    command += ["--memory-of", name, "--shapes", f"{case.rows}x{case.classes}"]
    command += ["--dtypes", case.dtype, "--modes", case.mode]
    child = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, **RETURN_BUFFERS},
        capture_output=True,
        text=True,
    )
    if child.returncode:
        last_line = (child.stderr.splitlines() or [""])[-1]
        log(f"  {name}: memory not measured, exit {child.returncode}: {last_line}")
        return None
    # The gradient has the size of the logits.
    extra = float(child.stdout.splitlines()[-1]) / case.logits_bytes - 1
    # Some pages of the warm-up always stay, but fewer than those of a gradient.
    if extra < -0.2:
        log(f"  {name}: memory not measured, the allocator keeps what is freed")
        return None
    return extra


def measure_peak_growth(backend, benchmark, name, cases):
    """Returns the largest growth of this process's memory during a run, in bytes."""
    (case,) = cases
    labels, logits = make_inputs(case)
    function = benchmark.make_candidate(name)
    step = PREPARE[backend](function, labels, logits, case.mode)
    step.run()
    return statistics.median(resident_growth(step) for _ in range(3))


def resident_growth(step):
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    # Resets the peak to what is in use now.
    Path("/proc/self/clear_refs").write_text("5")
    before = read_status("VmRSS")
    step.run()
    return read_status("VmHWM") - before


def read_status(field):
    """Returns an entry of this process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(f"/proc/self/status has no {field}")


def torch_gpu_growth(step):
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step.run()
    return torch.cuda.max_memory_allocated() - before


def tensorflow_gpu_growth(step):
    import tensorflow as tf

    tf.config.experimental.reset_memory_stats("GPU:0")
    before = tf.config.experimental.get_memory_info("GPU:0")["current"]
    step.run()
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] - before


def describe_environment(backend):
    return {
        "commit": describe_commit(),
        "device": gpu_name(backend) or describe_cpu(),
        "python": platform.python_version(),
        "keras": importlib.metadata.version("keras"),
        "backend": backend,
        # Not the version of the distribution, which may be called tensorflow-cpu.
        "backend_version": importlib.import_module(backend).__version__,
        "numpy": np.__version__,
        PACKAGE: importlib.import_module(PACKAGE).__version__,
    }


def describe_commit():
    """Returns the commit, with "+" if the package differs from it; "" without Git."""
    commit = run_git("rev-parse", "--short", "HEAD")
    return commit and commit + "+" * bool(run_git("status", "--porcelain", PACKAGE))


def run_git(*arguments):
    try:
        git = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True
        )
    except FileNotFoundError:
        return ""
    return "" if git.returncode else git.stdout.strip()


def gpu_name(backend):
    """Returns the name of the GPU that the backend uses, or `None`."""
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    return tf.config.experimental.get_device_details(gpus[0])["device_name"]


def describe_cpu():
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    model = models[0] if models else platform.processor()
    # Not the cores of the machine, because a container may have fewer.
    cores = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count()
    )
    return f"{model}, {cores} core{'s' * (cores > 1)}"


def append_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def format_report(rows, candidates):
    """Returns Markdown tables of the newest measurements, by device and dtype."""
    compared = tuple(name for name in candidates if name != "keras")
    tables = []
    for title, column, names in (
        ("time, as a ratio to Keras's own function", "ratio_to_keras", compared),
        ("extra memory, in multiples of the logits", "extra_memory", candidates),
    ):
        newest = newest_values(rows, column, names)
        for device, dtype in dict.fromkeys(key[:2] for key in newest):
            values = {
                key[2:]: newest[key] for key in newest if key[:2] == (device, dtype)
            }
            table = format_table(values, names)
            tables.append(f"### {dtype}: {title}\n\n{device}\n\n{table}")
    return "\n\n".join(tables)


def newest_values(rows, column, names):
    """Returns the last values by (device, dtype, backend, mode, candidate, shape)."""
    newest = {}
    for row in sorted(rows, key=lambda row: row["date"]):
        if row["candidate"] in names and row[column]:
            place = [row[name] for name in ("device", "dtype", "backend", "mode")]
            shape = int(row["rows"]), int(row["classes"])
            newest[*place, row["candidate"], shape] = float(row[column])
    return newest


def format_table(values, names):
    """Returns a Markdown table of values by (backend, mode, candidate, shape)."""
    shapes = sorted({key[-1] for key in values}, key=lambda shape: shape[0] * shape[1])
    header = ["backend", "candidate", *(f"{n} x {k}" for n, k in shapes)]
    lines = [header, ["---", "---", *("---:" for _ in shapes)]]
    for backend, mode in [(key, mode) for key in MODES for mode in MODES[key]]:
        for name in names:
            cells = [values.get((backend, mode, name, shape)) for shape in shapes]
            if any(cell is not None for cell in cells):
                cells = map(format_ratio, cells)
                lines.append([f"{backend}, {mode}", name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_ratio(value):
    return "-" if value is None else f"{value:.2f}"


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def log(message):
    print(message, file=sys.stderr, flush=True)
