"""Which processor this is, and what it can. How many of them there are to use:
`retinue.data.cpus`."""

from __future__ import annotations

import platform
from pathlib import Path

_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
    "bf16",
)


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's name, as far as the system tells. `root`: where the system's files lie."""
    said = _cpuinfo(root)
    return said.get("model name") or platform.processor() or platform.machine()


def cpu_flags(root: Path = Path("/")) -> list[str]:
    """All that the processor can, as the system names it, sorted; empty where it does not tell."""
    said = _cpuinfo(root)
    return sorted((said.get("flags") or said.get("Features") or "").split())


def cpu_features() -> list[str]:
    """The vector extensions that matter for speed, as the system names them."""
    flags = set(cpu_flags())
    return [name for name in _FEATURES if name in flags]


def without_bfloat16() -> str | None:
    """Why the processor is not thought to have instructions that multiply in bfloat16
    (`avx512_bf16` or `amx_bf16` on x86-64, `bf16` or `svebf16` on ARM); None: it has. Without them
    bfloat16 is emulated, and hundreds of times slower than float32."""
    told = cpu_flags() or _known_to_torch()
    if not told:
        return "it is not known whether this processor has bfloat16 instructions"
    if not any("bf16" in flag for flag in told):
        return "this processor has no bfloat16 instructions"
    return None


def _known_to_torch() -> list[str]:
    """What PyTorch finds where the system does not tell, as on Windows and macOS."""
    import torch

    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return [name for name, there in found.items() if there is True]


def _cpuinfo(root: Path) -> dict[str, str]:
    """What the system says of the first processor: a large machine has hundreds alike."""
    found: dict[str, str] = {}
    try:
        with open(root / "proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if not line.strip():
                    break
                key, _, value = line.partition(":")
                found.setdefault(key.strip(), value.strip())
    except (OSError, UnicodeDecodeError):
        pass
    return found
