"""Every error that a user can cause. Anything else that is raised is a fault of ours.

UserError                     one clean line and exit code 2 on the command line
├── ConfigError               a configuration, a space or an override breaks a law
├── NameRefusedError          a name that must become a path would leave its folder
├── NotFoundError             a file, model, study or task that does not exist
├── ModelError                weights or a tokenizer that cannot be had or used
│   └── DroppedTokenError     a text needs a token that the model does not have
├── ResultsError              a results folder that cannot be written, read or continued
│   └── LockedError           another process holds it
├── SuiteError                evaluation items that cannot be built or read
├── CloudError                the cloud cannot be reached, refuses, or takes too long
│   ├── CredentialsError      no key, or a wrong one
│   ├── CapacityError         it has no such machine now
│   └── UnreachableError      it does not answer
└── DataError                 training data that cannot be used
    └── LeakError             a training text teaches what is to be measured
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend; its text is one sentence that says how."""


class ConfigError(UserError):
    """A configuration, a search space or an override breaks a law."""


class NameRefusedError(UserError):
    """A name would not be safe as the name of a file or folder."""


class NotFoundError(UserError):
    """Something the user named does not exist."""


class ModelError(UserError):
    """A model or tokenizer cannot be had, or is not what it claims to be."""


class DroppedTokenError(ModelError):
    """A text needs a token that this model's vocabulary does not hold."""


class ResultsError(UserError):
    """A results folder cannot be written, read or continued."""


class LockedError(ResultsError):
    """Another process is working on a study or a training."""


class SuiteError(UserError):
    """Evaluation items cannot be built or read."""


class CloudError(UserError):
    """The cloud cannot be reached, refuses something, or takes too long."""


class CredentialsError(CloudError):
    """There is no key for the cloud, or it is refused."""


class CapacityError(CloudError):
    """The cloud has no such machine now."""


class UnreachableError(CloudError):
    """The cloud does not answer; it may later."""


class DataError(UserError):
    """A word list, a replay file or other training data cannot be used."""


class LeakError(DataError):
    """A training text teaches one of the tasks that transfer is measured by."""


MAX_LISTED = 30
"""Names that a message lists at most."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Say what exists instead of `name`: the closest names, or all of them when none is close.

    Args:
        name: What the user wrote.
        known: The valid names.
        count: How many close names to offer.

    Returns:
        A phrase to end a sentence with, such as ``did you mean lora_r?``.
    """
    names = list(dict.fromkeys(known))
    same = [own for own in names if own.lower() == name.lower()]
    if same:
        return f"did you mean {same[0]}?"
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.6)
    if close:
        # What is clearly further off than the closest is no guess, only noise.
        nearness = [difflib.SequenceMatcher(None, other, name).ratio() for other in close]
        likely = [c for c, near in zip(close, nearness, strict=True) if near > nearness[0] - 0.1]
        return f"did you mean {' or '.join(likely)}?"
    listed = sorted(names)
    more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
    return f"known: {', '.join(listed[:MAX_LISTED])}{more}"


def without_secrets(text: str) -> str:
    """Cut the keys of the environment, and passwords within addresses, out of a text.

    Libraries may put either into an error, and errors are kept beside results.
    """
    for name, value in os.environ.items():
        if len(value) >= _SECRET_LENGTH and _SECRET.search(name):
            text = text.replace(value, "***")
    return _PASSWORD.sub("//***@", text)


_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|USER_ID", re.IGNORECASE)
_SECRET_LENGTH = 8
"""Of a shorter one every text is full."""
_PASSWORD = re.compile(r"(?<=:)//[^\s/@'\"]{1,512}@")


def numbered(number: int, what: str) -> str:
    """Return a number of things in words: 1 trial, 2 trials."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def shown(value: object, limit: int = 80) -> str:
    """Return a user's value as a message shows it: in quotes, and never longer than `limit`."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
