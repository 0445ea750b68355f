"""Models that go to a hub with their card, and come from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retinue.exporting.hub import Pulled, Pushed


def model_card(
    model: str | Path,
    *,
    repository: str | None = None,
    licence: str | None = None,
    data: str | None = None,
    card: str | Path | None = None,
) -> str:
    """The card of a model file or run folder, as Markdown with a YAML header: what it is meant for,
    its figures, its recipe, and the licence of the weights that it began from.

    `repository`: where it will lie, OWNER/REPO. `licence`: by which the model may be used, in the
    hub's words (`apache-2.0`). `data`: what images it is meant for, in your words. `card`: a file
    of your own in place of all that; its header is checked. Raises UsageError for what will not do.
    """
    from retinue.errors import UsageError
    from retinue.exporting.card import readme
    from retinue.exporting.header import refuse_bad_header
    from retinue.exporting.hub import Address, signed
    from retinue.exporting.model import refuse_exported
    from retinue.files import nearest, read_text
    from retinue.modelfile import find_model

    file = find_model(Path(model))
    refuse_exported(file)
    place = None if repository is None else Address.of(repository).repository
    if card is None:
        return signed(readme(file, repository=place, licence=licence, data=data))
    if vain := next((k for k, v in {"licence": licence, "data": data}.items() if v), None):
        raise UsageError(
            f"{vain} has no effect on a card of your own",
            where=vain,
            mend="write it there and leave this out",
        )
    try:
        text = read_text(card)
    except FileNotFoundError:
        raise UsageError("no such file", where=str(card), mend=nearest(Path(card))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the card cannot be read: {error}", where=str(card)) from None
    refuse_bad_header(text, str(card))
    return text


def push(
    model: str | Path,
    repository: str,
    *,
    licence: str | None = None,
    data: str | None = None,
    card: str | Path | None = None,
    private: bool = True,
    message: str | None = None,
    force: bool = False,
) -> Pushed:
    """Send a model file, or that of a run folder, to a hub, with its card (see `model_card`), in
    one commit. A repository that is not there is made, for its owner alone unless `private` is
    false. A card there that somebody has written is replaced with `force` alone.

    Raises UsageError for what will not do, RetinueError where the hub cannot be reached or refuses.
    """
    from retinue.exporting import hub
    from retinue.modelfile import find_model

    text = model_card(model, repository=repository, licence=licence, data=data, card=card)
    return hub.push(
        find_model(Path(model)),
        text,
        repository,
        private=private,
        message=message,
        replace_card=force or card is not None,
    )


def pull(place: str, *, out: str | Path | None = None, force: bool = False) -> Pulled:
    """Fetch the model of OWNER/REPO or OWNER/REPO@REVISION from a hub, with its card, to the folder
    `out`, by default one called like the repository. `force` replaces what lies there.

    Raises UsageError for what will not do, RetinueError where neither the hub nor its cache has it.
    """
    from retinue.exporting import hub

    return hub.pull(place, None if out is None else Path(out), force=force)
