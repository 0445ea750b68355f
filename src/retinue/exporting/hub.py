"""A model with its card to a hub, and from there: `OWNER/REPO`, at one commit.

The transfers are huggingface_hub's. Nothing is sent or fetched but what was asked for; the token
stays with that library (`hf auth login`, or `HF_TOKEN`), and no message of ours repeats it.
`HF_ENDPOINT` names another server than the public one.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.exporting.staging import staged
from retinue.modelfile import MODEL_FILE, ModelDescription
from retinue.text import first_line
from retinue.weights.catalogue.entry import Hub
from retinue.weights.download import refuse_unreachable
from retinue.weights.resolution import from_hub

CARD = "README.md"
"""What hubs show of a repository."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w./-]{0,199}", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_SECRET = re.compile(r"hf_\w{6,}|(?i:bearer)\s+\S+|(?<=://)[^/@\s]+(?=@)")
_PATIENCE = 30.0
"""Seconds that the hub may take to say what it has."""
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class Address:
    """A repository on a hub, at one revision."""

    repository: str
    revision: str | None = None
    """A branch, tag or commit; None: the newest commit."""

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def of(cls, text: str) -> Address:
        """From `OWNER/REPO` or `OWNER/REPO@REVISION`. UsageError for what is neither."""
        repository, at, revision = text.removeprefix("hub:").partition("@")
        odd = not _REPOSITORY.fullmatch(repository) or any(
            mark in repository for mark in ("..", "--")
        )
        if odd or (at and (not _REVISION.fullmatch(revision) or ".." in revision)):
            raise UsageError(
                f"unclear place on the hub {text!r}",
                mend="write OWNER/REPO or OWNER/REPO@REVISION: letters, digits, - _ and .",
            )
        return cls(repository, revision or None)


@dataclass(frozen=True)
class Pushed:
    """What a repository has now."""

    repository: str
    commit: str
    """The commit that holds it, 40 hexadecimal digits."""
    url: str
    made: bool
    """Whether the repository is new."""
    changed: bool
    """Whether there was anything new in it."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Pulled:
    """What was fetched."""

    repository: str
    commit: str
    path: Path
    """The folder with the model file, and its card if there is one."""
    offline: bool
    """Whether the commit was looked up in the cache, as the hub could not be reached."""
    description: ModelDescription

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "repository": self.repository,
            "commit": self.commit,
            "path": str(self.path),
            "offline": self.offline,
            "network": self.description.network,
            "task": self.description.task,
            "classes": list(self.description.classes),
        }


def push(
    model: Path,
    card: str,
    repository: str,
    *,
    private: bool = True,
    message: str | None = None,
    replace_card: bool = False,
) -> Pushed:
    """Send the model file `model` and the page `card` to `repository`, in one commit on its main
    branch; the repository is made if it is not there, to be seen by its owner alone unless
    `private` is false.

    Raises:
        UsageError: the repository has a card that this would replace by another, unless
            `replace_card`; or no such place.
        RetinueError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    address = Address.of(repository)
    if address.revision:
        raise UsageError(
            "a model is pushed to the newest commit, not to a revision",
            where=repository,
            mend=f"write {address.repository}",
        )
    api = HfApi(library_name="retinue")
    where = address.repository
    try:
        refuse_unreachable(f"{api.endpoint}/{where}")
    except RetinueError as error:
        raise RetinueError(_said(error.what), where=where, mend="nothing was sent") from None
    with _answering(where, writes=True):
        made, parent = False, None
        try:
            info = api.model_info(where, timeout=_PATIENCE)
            parent = info.sha
            files = {one.rfilename for one in info.siblings or []}
        except RepositoryNotFoundError as error:
            if _status(error) == 401 and not _logged_in():
                raise
            files = set()
            api.create_repo(where, private=private)
            made = True
        if CARD in files and not replace_card and parent is not None:
            _refuse_other_card(where, parent, card)
        with warnings.catch_warnings():  # what the hub advises about headers is no fault
            warnings.simplefilter("ignore")
            commit = api.create_commit(
                where,
                [
                    CommitOperationAdd(MODEL_FILE, str(model)),
                    CommitOperationAdd(CARD, card.encode("utf-8")),
                ],
                commit_message=message or "Add a model with its card",
                parent_commit=parent,
            )
    return Pushed(where, commit.oid, f"{api.endpoint}/{where}", made, commit.oid != parent)


def _refuse_other_card(repository: str, commit: str, card: str) -> None:
    """UsageError where a person has written the card that is there."""
    there = from_hub(Hub(repository, commit, CARD)).read_text(encoding="utf-8", errors="replace")
    if there == card or _unsigned(there) is not None:
        return
    raise UsageError(
        f"the repository has a {CARD} that retinue has not written, or that was edited since",
        where=repository,
        mend="send that one along with --card FILE, or replace it with --force",
    )


def signed(card: str) -> str:
    """`card` with a last line, not shown, by which it is known as it was written."""
    return f"{card}\n<!-- written by retinue: {_digest(card)} -->\n"


def _unsigned(card: str) -> str | None:
    """What `signed` was given; None for any other text."""
    text, _, rest = card.rstrip("\n").rpartition("\n<!-- written by retinue: ")
    return text if text and rest == f"{_digest(text)} -->" else None


def _digest(text: str) -> str:
    import hashlib

    return hashlib.blake2b(text.strip().encode(), digest_size=8).hexdigest()


def pull(place: str, out: Path | None = None, *, force: bool = False) -> Pulled:
    """The model of `place`, OWNER/REPO or OWNER/REPO@REVISION, in the folder `out`, by default one
    called like the repository; with its card.

    A branch, tag, or no revision is asked of the hub; where that cannot be reached, the commit that
    it was last time is taken from the cache. What the hub does answer (no such repository, no
    access) always counts.

    Raises:
        UsageError: no such place, or something else lies in `out`, unless `force`.
        RetinueError: neither the hub nor the cache has it, or it is no model of retinue's.
    """
    address = Address.of(place)
    folder = out if out is not None else Path(address.repository.rpartition("/")[2])
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            "this is a file, not a folder", where=str(folder), mend="choose another --out"
        )
    commit, names, offline = _resolved(address)
    if names is not None and MODEL_FILE not in names:
        others = [name for name in sorted(names) if name.endswith(".safetensors")]
        mend = (
            f"there is {others[0]!r}: model.weights=hub:{address.repository}@{commit}/{others[0]}"
        )
        raise RetinueError(
            f"the repository has no {MODEL_FILE}, so no model that retinue pushed",
            where=str(address),
            mend=f"{mend} trains from it" if others else "look at its files",
        )
    model = from_hub(Hub(address.repository, commit, MODEL_FILE))
    description = modelfile.read_description(model)
    target = folder / MODEL_FILE
    card = None
    if names is None or CARD in names:
        try:
            card = from_hub(Hub(address.repository, commit, CARD))
        except RetinueError:
            if names is not None:
                raise
    for theirs, ours in ((model, target), (card, folder / CARD)):
        if theirs is not None and ours.exists() and not force and not _alike(theirs, ours):
            raise UsageError(
                "another file has that name",
                where=str(ours),
                mend="choose another folder with --out, or replace it with --force",
            )
    try:
        with staged(target) as temporary:
            shutil.copyfile(model, temporary)
            if card is not None:
                shutil.copyfile(card, temporary.with_name(CARD))
    except OSError as error:
        raise RetinueError(
            f"the model cannot be written: {error.strerror or error}", where=str(folder)
        ) from error
    return Pulled(address.repository, commit, folder, offline, description)


def _alike(one: Path, other: Path) -> bool:
    import filecmp

    return filecmp.cmp(one, other, shallow=False)


def _resolved(address: Address) -> tuple[str, set[str] | None, bool]:
    """The commit that `address` means now, the names of its files, and whether that is from the
    cache, which does not know the names."""
    from huggingface_hub import HfApi

    revision = address.revision or "main"
    api = HfApi(library_name="retinue")
    try:
        refuse_unreachable(f"{api.endpoint}/{address.repository}")
    except RetinueError as error:
        commit = _remembered(address.repository, revision)
        if commit is None:
            raise RetinueError(
                f"{_said(error.what)}; the cache does not have it either",
                where=str(address),
                mend="go online once",
            ) from None
        return commit, None, True
    with _answering(str(address), writes=False):
        info = api.model_info(address.repository, revision=revision, timeout=_PATIENCE)
    commit = str(info.sha)
    if not _COMMIT.fullmatch(commit):
        raise RetinueError("the hub does not say which commit that is", where=str(address))
    _remember(address.repository, revision, commit)
    return commit, {one.rfilename for one in info.siblings or []}, False


def _references(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE, name, "refs")


def _remembered(repository: str, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (_references(repository) / revision).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _remember(repository: str, revision: str, commit: str) -> None:
    """In the hub's own cache, as its library does: what is fetched by its commit leaves no trace of
    the name that it was asked by."""
    from retinue.files import write_text

    if not _COMMIT.fullmatch(revision) and _remembered(repository, revision) != commit:
        try:
            write_text(_references(repository) / revision, commit)
        except OSError:  # a cache that cannot be written only remembers nothing
            return


# --- what the hub answers ------------------------------------------------------------------------


@contextmanager
def _answering(where: str, *, writes: bool) -> Iterator[None]:
    """Refusals in our words, with how to mend them."""
    try:
        yield
    except RetinueError:
        raise
    except Exception as error:  # its own, the system's, and those of its HTTP library
        _refused(error, where, writes)


def _refused(error: Exception, where: str, writes: bool) -> NoReturn:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = _status(error)
    if isinstance(error, RevisionNotFoundError):
        what, mend = "the repository has no such revision", "name a branch, tag or commit of it"
    elif isinstance(error, GatedRepoError):
        what, mend = "the repository asks for permission", "ask for it on its page, then log in"
    elif status == 401 or (isinstance(error, RepositoryNotFoundError) and not _logged_in()):
        answers = status or 401
        what = f"the hub answers {answers}: there is no such repository, or it needs a login"
        mend = _LOGIN
    elif isinstance(error, RepositoryNotFoundError) or status == 404:
        what, mend = "the hub answers 404: there is no such repository", "is the name right?"
    elif status == 403:
        right = "a token that may write" if writes else "a token that may read it"
        what, mend = "the hub answers 403: this is not yours to do", f"use {right}"
    elif status in (409, 412):
        what, mend = f"the hub answers {status}: somebody else changed it just now", "try again"
    elif isinstance(error, HfHubHTTPError):
        what, mend = f"the hub answers {status}: {_said(error)}", "try again later"
    else:
        what, mend = f"the hub cannot be used: {_said(error)}", "try again later"
    raise RetinueError(what, where=where, mend=mend) from None


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _logged_in() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def _said(error: object) -> str:
    """The first line of what it says, without what may be a secret."""
    from huggingface_hub import get_token

    text = first_line(error, type(error).__name__)
    if token := get_token():
        text = text.replace(token, "…")
    return _SECRET.sub("…", text)
