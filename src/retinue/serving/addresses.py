"""Pictures from addresses that requests name: off by default."""

from __future__ import annotations

from retinue.serving.answers import Fetch
from retinue.serving.problems import bad
from retinue.serving.settings import Settings


def fetcher(settings: Settings) -> Fetch:
    """Gives what lies at an address, where that is allowed."""

    async def refuse(url: str) -> bytes:
        raise bad("no_urls", "pictures are not fetched from addresses here",
                  mend="send the picture itself")  # fmt: skip

    return refuse
