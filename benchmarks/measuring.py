"""What all benchmarks share: ceilings, counts and peaks of the machine they run on, and how they answer.

Every claim is a ratio of two things measured in one run on one machine. A benchmark talks on stderr and ends its stdout with one JSON
object, so that `python -m benchmarks.unlearning | tail -1` can be read by another program.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

MATMUL_SIZES = {"cpu": (256, 512, 768, 1024), "cuda": (2048, 4096, 8192)}
"""Rows, inner and outer columns of the products of `matmul_ceiling`, in its order of trial."""
MIN_REPEATS = 5

# Runs a command and prints its exit status and its peak. The peak that Linux reports of a process is at least the one of the process
# that started it, so a small process must stand between a benchmark that has torch in memory and the command.
_WATCH_ONE_CHILD = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]))
"""


def matmul_ceiling(device: torch.device | str, dtype: torch.dtype, threads: int, *, seconds: float = 4.0) -> float:
    """The most floating-point operations a second that torch's own matrix product reaches here, FLOP/s.

    The best of the medians over `MATMUL_SIZES`, a multiply and an add counted as two. Products of 32-bit floats use the reduced
    precision of a GPU only where this process allows it.

    Args:
        device: Where to multiply.
        dtype: Of both factors.
        threads: CPU threads; set for the measurement, then set back.
        seconds: Wall-clock time to spend, shared equally among the sizes.
    """
    device, threads_before = torch.device(device), torch.get_num_threads()
    sizes = MATMUL_SIZES[device.type]
    torch.set_num_threads(threads)
    try:
        return max(2 * size**3 / _median_product_seconds(size, device, dtype, seconds / len(sizes)) for size in sizes)
    finally:
        torch.set_num_threads(threads_before)


def _median_product_seconds(size: int, device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    left, right = (torch.randn(size, size).to(device=device, dtype=dtype) for _ in range(2))
    product = left @ right
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MIN_REPEATS or time.perf_counter() < end:
        _wait_for(device)
        started = time.perf_counter()
        torch.matmul(left, right, out=product)
        _wait_for(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions that `call` runs, a multiply and an add counted as two.

    `call` is run once: a forward pass, or a forward and a backward pass. Padding counts like any other position. Products that torch
    does not run, such as those of the gradients of frozen weights, do not count; element-wise work does not count either.

    Source: `torch.utils.flop_counter`. Differs: attention is taken apart into its products, because the counter of torch 2.13 has no
    formula for the fused attention of CPUs and counts it as 0; a fused backward pass would also count recomputed products.

    >>> count_flops(lambda: torch.zeros(3, 4) @ torch.zeros(4, 5))  # 2 * 3 * 4 * 5
    120
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        call()
    return int(counter.get_total_flops())


def clock(device: torch.device | str = "cpu") -> float:
    """Seconds of work so far: of this process on a CPU, whatever else the machine does; on a GPU those on the wall, its work ended."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


class Stamps:
    """A watcher that notes the clock, or what `read` tells, at every step of a stage."""

    def __init__(self, read: Callable[[], float] = clock) -> None:
        """Note what `read` tells at each step; without one, seconds of work."""
        self._read, self.at, self.done = read, list[float](), list[int]()

    def __call__(self, done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        """Note one step."""
        self.at.append(self._read())
        self.done.append(done)

    def between(self, first: int, last: int = -1) -> float:
        """From the end of step `first`, counted from 0, to the end of step `last`.

        >>> stamps = Stamps(iter([1.0, 3.0, 7.0]).__next__)
        >>> for step in range(3):
        ...     stamps(step, 3, "steps", {})
        >>> stamps.between(0)  # 7 - 1
        6.0
        """
        return self.at[last] - self.at[first]


def flops_by_step(call: Callable[[Stamps], object]) -> Stamps:
    """Floating-point operations up to each step of a stage that `call` runs with a watcher; counted as in `count_flops`."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    stamps = Stamps(lambda: float(counter.get_total_flops()))
    with sdpa_kernel(SDPBackend.MATH), counter:
        call(stamps)
    return stamps


def median_ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """Median of first / second over `pairs`, no unit. The two of a pair are measured next to each other, so that load hits both.

    >>> median_ratio([(1.0, 2.0), (3.0, 4.0), (9.0, 3.0)])  # of 0.5, 0.75 and 3
    0.75
    """
    return statistics.median(first / second for first, second in pairs)


def peak_memory(command: Sequence[str | Path]) -> int:
    """Run `command` and tell its largest resident set, bytes.

    Of processes that the command starts and waits for, the largest counts, not the sum. What it prints goes to stderr. A Python
    without packages stands between, so nothing under some 10 MB can be told apart.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    words = [str(word) for word in command]
    watched = subprocess.run([sys.executable, "-I", "-S", "-c", _WATCH_ONE_CHILD, *words], stdout=subprocess.PIPE, text=True, check=True)
    code, peak = json.loads(watched.stdout)
    if code:
        raise subprocess.CalledProcessError(code, words)
    # Linux counts in KiB, macOS in bytes.
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What the measurements ran on: names and counts, nothing that tells whose machine it is."""
    device = torch.device(device)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "cpu": _cpu_model(),
        "cores": len(allowed),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def progress(text: str) -> None:
    """Tell a person on stderr how far the benchmark is."""
    print(text, file=sys.stderr, flush=True)


def ready() -> None:
    """Import what stages import late, so that no timing holds it, and keep what it says of itself off stderr."""
    import warnings

    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import transformers
    from transformers import AutoModelForSeq2SeqLM  # noqa: F401

    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def emit(result: dict[str, Any]) -> None:
    """Print `result` as one JSON object on one line; to be the last thing a benchmark prints on stdout.

    Raises:
        ValueError: A number is not finite, so that no reader could take it for a measurement.
    """
    print(json.dumps(result, allow_nan=False), flush=True)
