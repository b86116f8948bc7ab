"""What a measurement ran on, who else used it, and the energy that it took."""

from __future__ import annotations

import subprocess

import torch

from prunebench.devices import cpu_name
from prunebench.untyped import Foreign

ENERGY_ON_CPU = "energy is read from the GPU driver only"
ENERGY_WITHOUT_NVML = "energy needs the NVML bindings (pip install nvidia-ml-py)"


def describe(device: torch.device | str) -> str:
    """One line that names the device: a CPU with its number of threads, a GPU with its driver.

    Rows are compared only where this line is the same.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return f"{device.type}: {cpu_name()}, {torch.get_num_threads()} threads"
    driver = _driver_version(device) or "unknown"
    name = torch.cuda.get_device_name(device)
    return f"cuda: {name}, driver {driver}, CUDA {torch.version.cuda}"


def is_shared(device: torch.device | str) -> bool | None:
    """Whether another process holds memory on this GPU; None on a CPU or where nothing can tell."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    torch.cuda.init()
    torch.empty(1, device=device)  # this process must show up in the list itself
    # Counted, not compared by number: in a container the driver lists the host's numbers.
    processes = _processes(device)
    return len(processes) > 1 if processes else None


def energy_j(device: torch.device | str) -> tuple[float | None, str | None]:
    """The GPU's energy counter in joules, or None and the reason. It counts the whole device."""
    device = torch.device(device)
    if device.type != "cuda":
        return None, ENERGY_ON_CPU
    nvml = _nvml()
    if nvml is None:
        return None, ENERGY_WITHOUT_NVML
    try:
        return nvml.nvmlDeviceGetTotalEnergyConsumption(_handle(nvml, device)) / 1e3, None
    except nvml.NVMLError as error:
        return None, f"the driver gives no energy: {error}"


def _processes(device: torch.device) -> set[int]:
    """Process numbers with memory on the GPU; empty where neither NVML nor nvidia-smi tells."""
    nvml = _nvml()
    if nvml is not None:
        try:
            running = nvml.nvmlDeviceGetComputeRunningProcesses(_handle(nvml, device))
            return {process.pid for process in running}
        except nvml.NVMLError:
            return set()
    return {int(line) for line in _smi(device, "--query-compute-apps=pid") if line.isdigit()}


def _driver_version(device: torch.device) -> str | None:
    nvml = _nvml()
    if nvml is not None:
        version = nvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else version
    lines = _smi(device, "--query-gpu=driver_version")
    return lines[0] if lines else None


def _nvml() -> Foreign | None:
    """The NVML bindings, initialised, or None."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _handle(nvml: Foreign, device: torch.device) -> Foreign:
    return nvml.nvmlDeviceGetHandleByUUID(_uuid(device))


def _uuid(device: torch.device) -> str:
    # The driver's own number of a GPU differs from PyTorch's where some are hidden.
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _smi(device: torch.device, query: str) -> list[str]:
    """Lines that nvidia-smi answers to a query about one GPU; none where it cannot be asked."""
    command = ["nvidia-smi", f"--id={_uuid(device)}", query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
