"""`retinue push` and `retinue pull`."""

from __future__ import annotations

from typing import Annotated

import typer

from retinue.cli.options import Json, Model
from retinue.cli.output import print_json, say
from retinue.text import counted, listed, visible

PUSH_EXAMPLES = (
    "Example: retinue push runs/finetune me/flowers --licence apache-2.0"
    "\n\n"
    "To read the card first: retinue push runs/finetune me/flowers --dry-run"
)
PULL_EXAMPLES = (
    "Example: retinue pull me/flowers"
    "\n\n"
    "A tag, to a folder: retinue pull me/flowers@v1 --out models/flowers"
)


def push(
    model: Model,
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/REPO", help="Where to; made if it is not there.")
    ],
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence", metavar="NAME", help="By which the model may be used: apache-2.0, say."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="TEXT", help="What images it is meant for, in your words."),
    ] = None,
    card: Annotated[
        str | None,
        typer.Option("--card", metavar="FILE", help="A card of your own in place of the usual."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A repository that is made is for all to see.")
    ] = False,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="The commit's.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a card that was written there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the card and send nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a model file with its card to a hub, in one commit.

    The card, README.md, tells what the model is meant for, its figures, its recipe, and the licence
    of the weights that it began from. Log in once with `hf auth login`, or set HF_TOKEN.
    """
    from retinue import api

    if dry_run:
        text = api.model_card(model, repository=repository, licence=licence, data=data, card=card)
        typer.echo(text, nl=False)
        return
    pushed = api.push(
        model,
        repository,
        licence=licence,
        data=data,
        card=card,
        private=not public,
        message=message,
        force=force,
    )
    if as_json:
        print_json(pushed.as_dict())
        return
    say(visible(pushed.url))
    if pushed.made:
        say(f"  made          {'for all to see' if public else 'for its owner alone'}")
    say(f"  commit        {pushed.commit[:12]}{'' if pushed.changed else ' (nothing new)'}")


def pull(
    place: Annotated[
        str, typer.Argument(metavar="OWNER/REPO[@REVISION]", help="A branch, a tag or a commit.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="By default a folder called like the repository."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what lies there.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch a model with its card from a hub.

    Without a network, the commit that was fetched last under that name is taken from the cache.
    """
    from retinue import api

    pulled = api.pull(place, out=out, force=force)
    if as_json:
        print_json(pulled.as_dict())
        return
    say(visible(pulled.path))
    classes = pulled.description.classes
    say(f"  network       {visible(pulled.description.network)}")
    say(f"  classes       {counted(len(classes), 'class', 'classes')}: {listed(classes, 5)}")
    known = " (from the cache: the hub cannot be reached)" if pulled.offline else ""
    say(f"  commit        {pulled.commit[:12]}{known}")
