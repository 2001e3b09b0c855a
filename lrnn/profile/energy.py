"""Energy counters where the machine lets them be read: RAPL for processors, NVML for NVIDIA devices."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Rapl:
    """Joules of all processor packages, from Linux' powercap files. Counts everything that runs on them.

    Args:
        packages: folders with energy_uj and max_energy_range_uj.
    """

    def __init__(self, packages: list[Path]):
        self._files = [package / "energy_uj" for package in packages]
        self._ranges = [int((package / "max_energy_range_uj").read_text()) + 1 for package in packages]
        self._last = [int(file.read_text()) for file in self._files]
        self._joules = 0.0
        self.name = f"RAPL, {len(packages)} package(s), all that runs on them"

    def joules(self) -> float:
        """Since this object was made. To be asked more often than the counter wraps (minutes)."""
        for i, file in enumerate(self._files):
            now = int(file.read_text())
            self._joules += (now - self._last[i]) % self._ranges[i] / 1e6
            self._last[i] = now
        return self._joules


class Nvml:
    """Joules of NVIDIA device 0.

    Raises:
        OSError: there is no driver, no device, or it has no such counter.
    """

    def __init__(self):
        self._library = ctypes.CDLL("libnvidia-ml.so.1")
        self._device = ctypes.c_void_p()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(self._device))
        self._start = self._millijoules()
        self.name = "NVML, device 0"

    def _call(self, name: str, *arguments) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise OSError(f"{name} failed with {status}")

    def _millijoules(self) -> int:
        found = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._device, ctypes.byref(found))
        return found.value

    def joules(self) -> float:
        """Since this object was made."""
        return (self._millijoules() - self._start) / 1e3


def processor_energy() -> tuple[Rapl | None, str]:
    """The processor's counter and "", or None and why there is none that can be read."""
    packages = sorted(p for p in POWERCAP.glob("*-rapl:*") if p.name.count(":") == 1)
    if not packages:
        return None, f"{POWERCAP} has no RAPL package (a virtual machine, or no driver for this processor)"
    try:
        return Rapl(packages), ""
    except (OSError, ValueError) as error:
        return None, f"RAPL cannot be read: {error} (the files are root's on most systems)"


def device_energy() -> tuple[Nvml | None, str]:
    """The counter of NVIDIA device 0 and "", or None and why there is none that can be read."""
    try:
        return Nvml(), ""
    except OSError as error:
        return None, f"NVML cannot be read: {error}"


def joules_per_call(counter: Rapl | Nvml, call: Callable[[int], float], seconds: float = 1.0) -> float:
    """Energy of one call, everything else that the counter sees included.

    Args:
        counter: what counts.
        call: makes so many calls and returns the seconds of one of them.
        seconds: to go on for: RAPL's counter moves every millisecond.
    """
    repeats = max(1, int(0.05 / max(call(3), 1e-9)))
    made, end = 0, time.monotonic() + seconds
    before = counter.joules()
    while time.monotonic() < end:
        call(repeats)
        made += repeats
    return (counter.joules() - before) / made
