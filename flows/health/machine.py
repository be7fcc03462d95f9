"""Devices: cores, threads, memory, and GPUs, which torch is asked for in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from flows.health.finding import Check, Finding, fault, ok, warning
from flows.health.subject import Subject

TOPIC = "devices"
THREADS = "OMP_NUM_THREADS"
FEW_BYTES = 2 * 2**30
GPU_WITHIN_S = 18.0
# Where Linux keeps the most that a container may take.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
ASK_TORCH = """
import json, torch
cuda = torch.cuda
names = range(cuda.device_count()) if cuda.is_available() else ()
about = [(cuda.get_device_name(each), *cuda.mem_get_info(each), cuda.get_device_capability(each)[0] >= 8) for each in names]
print(json.dumps({"built": torch.version.cuda, "devices": about}))
"""


def cores(subject: Subject) -> Finding:
    """The cores this process may use, and the threads that each process is told to take."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get(THREADS)
    if told is None:
        return ok(f"{num_cores} cores; `{THREADS}` is not set, so a process takes all of them")
    if not told.isdecimal() or int(told) == 0:
        return warning(f"{num_cores} cores; `{THREADS}` is no number of threads", "set it to 1 or more, or unset it")
    said = f"{num_cores} cores; `{THREADS}` is {told}"
    return ok(said) if int(told) <= num_cores else warning(f"{said}, which is more than there are", f"set it to at most {num_cores}")


def memory(subject: Subject) -> Finding:
    """The memory that is free, of the machine or of the container."""
    import psutil

    present = psutil.virtual_memory()
    limits = [int(text) for path in LIMITS if path.is_file() and (text := path.read_text().strip()).isdecimal()]
    total = min([present.total, *limits])
    said = f"{_gib(min(present.available, total))} of {_gib(total)} of memory are free"
    if min(present.available, total) >= FEW_BYTES:
        return ok(said)
    return warning(said, f"end what takes it: training a small network takes about {_gib(FEW_BYTES)}")


def gpus(subject: Subject) -> Finding:
    """The CUDA devices that torch sees, if torch is installed."""
    if find_spec("torch") is None:
        return fault("torch is not installed", "install the project again with `-c constraints.txt`")
    asked = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=GPU_WITHIN_S, check=False)
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return fault(f"torch ends with {asked.returncode}: {last[:200]}", "install torch again, or mend the driver of the GPU")
    told = json.loads(asked.stdout)
    if not told["devices"]:
        built = f"built for CUDA {told['built']}" if told["built"] else "built for the CPU"
        return ok(f"no CUDA device; torch is {built}, and nights run on the CPU")
    about = [f"{name}, {_gib(free)} of {_gib(total)} free, {'bf16' if bf16 else 'no bf16'}" for name, free, total, bf16 in told["devices"]]
    said = f"{len(about)} CUDA: {'; '.join(about)}"
    if all(free >= FEW_BYTES for _, free, _, _ in told["devices"]):
        return ok(said)
    return warning(said, "end what takes the memory of the GPU")


CHECKS = (Check(TOPIC, "cores", cores), Check(TOPIC, "memory", memory), Check(TOPIC, "GPUs", gpus))


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
