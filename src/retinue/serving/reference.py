"""`/docs`: the reference of the addresses as a page of its own, made of `/openapi.json`; nothing is
loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment


def page(api: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI description."""
    template = (resources.files("retinue.serving") / "reference.html").read_text("utf-8")
    return Environment(autoescape=True).from_string(template).render(api=api)
