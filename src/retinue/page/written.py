"""What the JSON files of a run hold: a schema a file, for whoever reads them.

A file that was damaged or edited is refused by its name and the place in it, before anything
relies on it. What a schema does not name is allowed: newer releases and tasks write more.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from retinue.errors import RetinueError

Text = Annotated[str, Strict()]
Count = Annotated[int, Strict(), Field(ge=0)]
Object = dict[str, Any]


class _Settings(BaseModel):
    """What `auto` came to; nothing else, as it is taken again."""

    model_config = ConfigDict(extra="forbid")

    device: Text
    precision: Text
    threads: Annotated[int, Strict(), Field(ge=1)]
    world: Annotated[int, Strict(), Field(ge=1)]
    why: Text = ""


class _Environment(BaseModel):
    settings: _Settings | None = None
    versions: dict[str, Text] = {}
    recipe: Object | None = None
    plan: Object | None = None
    task_state: Object = {}
    arguments: Object = {}
    preprocessing: Object = {}
    skipped: dict[str, Text] = {}
    timings: Object = {}
    waited: dict[str, Object] = {}
    kept: Object = {}
    fitted: Object = {}
    trunk: Object | None = None
    model: Object | None = None


class _Metrics(BaseModel):
    task: Text = ""
    split: Text = ""
    images: Count = 0
    skipped: dict[str, Text] = {}
    per_class: list[Object] | None = None


_SCHEMAS: dict[str, TypeAdapter[Any]] = {
    "classes.json": TypeAdapter(Annotated[list[Text], Field(min_length=1)]),
    "environment.json": TypeAdapter(_Environment),
    "metrics.json": TypeAdapter(_Metrics),
}


def checked(name: str, value: Any, where: str) -> Any:
    """`value`, which the file `name` of a run holds. RetinueError if no training writes that."""
    schema = _SCHEMAS.get(name)
    if schema is None:
        return value
    try:
        schema.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise RetinueError(
            f"this is not what a training writes ({first['msg']})",
            where=f"{where}, key {key}" if key else where,
            mend="put it back as it was, or start a new training from the run's recipe.yaml",
        ) from None
    return value
