"""`/docs`: the reference of the addresses as a page of its own, made of `/openapi.json`; nothing is
loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape


def page(api: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI description."""
    template = (resources.files("retinue.serving") / "reference.html").read_text("utf-8")
    environment = Environment(autoescape=True)
    environment.filters["marked"] = marked
    return environment.from_string(template).render(api=api)


def marked(text: str) -> Markup:
    """What stands between backticks as code; everything is text."""
    parts = text.split("`")
    whole = [
        Markup("<code>{}</code>").format(p) if k % 2 else escape(p) for k, p in enumerate(parts)
    ]
    return Markup("").join(whole)
