"""A byte-level vocabulary read right: the bytes and the text of every token, added tokens apart.

A byte-level tokenizer writes each byte of a token as one printable character: a leading space as
"Ġ", a line break as "Ċ", the two bytes of "é" as "Ã" and "©". Whoever judges these strings judges
the alphabet, not the token: every token with a leading space looks non-ASCII. So everything here
works on bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuning.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@functools.cache
def byte_alphabet() -> Mapping[str, int]:
    """Return the byte that each character of a vocabulary string stands for, 256 of them.

    Bytes that print stand for themselves; the others, in order, for the characters from U+0100 on
    (Radford et al. 2019, GPT-2).
    """
    printing = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printing))
    return {
        **{chr(byte): byte for byte in printing},
        **{chr(0x100 + place): byte for place, byte in enumerate(others)},
    }


def bytes_of(string: str) -> bytes:
    """Return the bytes that a vocabulary string stands for; the inverse of `string_of`.

    Raises:
        KeyError: The string holds a character that stands for no byte.
    """
    alphabet = byte_alphabet()
    return bytes(alphabet[character] for character in string)


@functools.cache
def _characters() -> Mapping[int, str]:
    return {byte: character for character, byte in byte_alphabet().items()}


def string_of(token: bytes) -> str:
    """Return the vocabulary string of a token's bytes."""
    characters = _characters()
    return "".join(characters[byte] for byte in token)


def shown_text(token: bytes) -> str:
    """Return a token's text as a person reads it: what is no whole character as ``<0xE4>``."""
    text = token.decode("utf-8", errors="surrogateescape")
    return "".join(
        f"<0x{ord(character) - 0xDC00:02X}>" if "\udc80" <= character <= "\udcff" else character
        for character in text
    )


def shown_string(string: str) -> str:
    """Return a vocabulary string as a person reads it; what is no byte-level string, as it is."""
    try:
        return shown_text(bytes_of(string))
    except KeyError:
        return string


_SYMBOLS = {" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}


def visible_text(text: str) -> str:
    """Return a token's text for a table or a figure: spaces, line breaks and tabs as symbols.

    Other characters that do not print stand as ``<U+001B>``: a terminal must not obey a token.
    """
    return "".join(_SYMBOLS.get(c) or (c if c.isprintable() else f"<U+{ord(c):04X}>") for c in text)


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that text is never cut into by merging: a control token of chats, tools or code."""

    id: int
    text: str
    is_special: bool
    """Left out where a text is shown; the others (such as <think>) are part of the text."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a byte-level tokenizer."""

    base: Mapping[int, bytes]
    """Bytes of each base token, by id, in the order of ids."""
    strings: Mapping[int, str]
    """The same tokens as the tokenizer's file writes them."""
    added: tuple[AddedToken, ...]
    """Added tokens in the order of ids; none of them is a base token."""

    @property
    def size(self) -> int:
        """Number of ids: base and added tokens."""
        return len(self.base) + len(self.added)

    @functools.cached_property
    def added_by_id(self) -> Mapping[int, AddedToken]:
        """Added tokens, for look-ups."""
        return {token.id: token for token in self.added}

    def string(self, token: int) -> str:
        """Return a token, base or added, as the tokenizer's file writes it."""
        return self.strings[token] if token in self.strings else self.added_by_id[token].text

    def text(self, token: int) -> str:
        """Return a token, base or added, as a person reads it."""
        if token in self.base:
            return shown_text(self.base[token])
        return self.added_by_id[token].text


def read_vocabulary(backend: Tokenizer, name: str = "the tokenizer") -> Vocabulary:
    """Return the tokens of a tokenizer.

    Args:
        backend: A byte-level tokenizer.
        name: What it is called, for the message.

    Raises:
        ModelError: It is no byte-level tokenizer.
    """
    added = {
        token: AddedToken(token, content.content, bool(content.special))
        for token, content in sorted(backend.get_added_tokens_decoder().items())
    }
    of_base = backend.get_vocab(with_added_tokens=False)
    strings = {
        token: string
        for string, token in sorted(of_base.items(), key=lambda pair: pair[1])
        if token not in added
    }
    try:
        base = {token: bytes_of(string) for token, string in strings.items()}
    except KeyError as error:
        raise ModelError(
            f"{name} is no byte-level tokenizer: its vocabulary holds {error.args[0]!r}, which "
            f"stands for no byte; the English subset and the token analysis need one"
        ) from error
    return Vocabulary(base=base, strings=strings, added=tuple(added.values()))
