"""How models are served: everything that can be set, with its default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1 << 20
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """Limits and manners. Times are in seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free port."""
    keys: tuple[str, ...] = ()
    """Who calls the models has to know one of them; none: everybody may."""
    hosts: tuple[str, ...] = ()
    """Names that the server is called by, beside its own address; while it listens on loopback
    alone, no others are answered, so that no foreign page reaches it over its own name."""
    samples: Path | None = None
    """A folder of pictures to choose from on the page."""
    urls: bool = False
    """Whether pictures may be fetched from addresses that requests name."""

    batch_size: int = 16
    """So many images go through a model at once, at most."""
    latency: float = 0.005
    """So long an image waits, at most, for others that are being decoded."""
    queue: int = 64
    """Images of a model that may be under way; beyond, requests are answered 429."""
    decoders: int | None = None
    """Processes that decode; None: one for every CPU that this process may use, at most 8."""

    max_bytes: int = 32 * MEBIBYTE
    """Of a request's body, and of a picture that is fetched."""
    max_pixels: int = 64_000_000
    """Of a picture, as its header says."""
    max_images: int = 32
    """Of a request."""
    max_buffered: int = 256 * MEBIBYTE
    """Of all bodies that are being received together."""
    max_decoded: int = 512 * MEBIBYTE
    """Of all pictures that are decoded and wait for their answer; beyond, requests are answered
    429. Only exports with the preparation in their graph take pictures whole, and come near it."""
    header_time: float = 10.0
    """Until a connection has sent a request's headers."""
    body_time: float = 30.0
    """Until the body is there."""
    decode_time: float = 10.0
    """For one picture; whatever decodes it is ended then."""
    answer_time: float = 60.0
    """From the body to the answer."""
    connections: int = 1000
    """Open at once; beyond, all but probes are answered 503, and beyond twice as many cut off."""

    lame_duck: float = 0.5
    """After SIGTERM, connections that come or go on are still answered for so long, and closed."""
    drain_time: float = 30.0
    """After SIGTERM, requests under way have so long."""
    watch: float = 1.0
    """How often the model files are looked at for a change; 0: never."""

    @property
    def open_to_others(self) -> bool:
        """Whether other machines reach it."""
        return self.host not in LOOPBACK
