"""What a server says is kept without the key, without prompts and answers, and not at any length."""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote_plus

MOST = 300  # characters that are kept of what a server says
READ = 20_000  # characters of it that are looked at
PIECE = 8  # letters and digits of a prompt or an answer by which it is known again; a shorter one is known as a whole
BLOCK = 12  # the same of what other requests said: any 23 hold such a block, and our language has few of 12
KEY_PIECE = 4  # characters of a key by which a part of it is known
WORD = re.compile(r"[^\W_]+")
ESCAPE = re.compile(r"\\+(?:u([0-9a-f]{4})|x([0-9a-f]{2})|U([0-9a-f]{8})|([0-7]{3})|[nrt])", re.IGNORECASE)
HEX = re.compile(r"(?:0x|\b|(?<=[0-9a-f]{2}))([0-9a-f]{2})(?=[0-9a-f]{2}|\b)", re.IGNORECASE)
CODE = re.compile(r"\b\d{2,3}\b")
PACKED = re.compile(r"[A-Za-z0-9+/_-]{4,}")
UNSEEN = {"Mn", "Me", "Cf"}  # accents, and signs without width


class Heard:
    """What was said to a server and by it: pieces of all its prompts and answers, so that none is taken for news."""

    def __init__(self) -> None:
        self._blocks: set[str] = set()

    def add(self, text: str) -> None:
        """Know ``text`` again: one of fewer than 24 letters and digits by any 12 of them, a longer one by any 23."""
        letters = _words(text).replace(" ", "")
        if PIECE <= len(letters) < BLOCK:
            self._blocks.add(letters)
        step = BLOCK if len(letters) >= 2 * BLOCK else 1
        self._blocks.update(letters[place : place + BLOCK] for place in range(0, len(letters) - BLOCK + 1, step))

    def hearing(self) -> Callable[[str], None]:
        """Takes a text part by part, as it is received; what has come of it is known again at once, as by ``add``."""
        rest, is_long = "", False

        def take(part: str) -> None:
            nonlocal rest, is_long
            rest += _words(part).replace(" ", "")
            if is_long:
                self._blocks.update(rest[place : place + BLOCK] for place in range(0, len(rest) - BLOCK + 1, BLOCK))
            else:
                self.add(rest)
                is_long = len(rest) >= 2 * BLOCK
            if is_long:
                rest = rest[len(rest) // BLOCK * BLOCK :]

        return take

    def repeats(self, words: str) -> bool:
        """Whether ``words`` hold a piece of what was heard."""
        letters = words.replace(" ", "")
        return any(
            letters[place : place + length] in self._blocks
            for length in range(PIECE, BLOCK + 1)
            for place in range(len(letters) - length + 1)
        )


def masked(text: str, key: str = "", secrets: Iterable[str] = (), heard: Heard | None = None) -> str:
    """``text`` on one line, its ``key`` masked; only how long it is, if it repeats a piece of one of ``secrets`` or of
    what was ``heard``, or holds any of these in another writing: as a URL, base64 and hexadecimal have it, and others.

    >>> masked("no model for sk-1234567", key="sk-1234567")
    'no model for ***'
    >>> masked("cannot serve: Tell me of my divorce", secrets=["Tell me of my divorce"])
    '(35 characters, left out: they repeat the key, the prompt or an answer)'
    >>> masked("no model for c2stMTIzNDU2Nw==", key="sk-1234567")
    '(29 characters, left out: they repeat the key, the prompt or an answer)'
    """
    shown = "".join(sign if sign.isprintable() else " " for sign in text[:READ])
    kept = _without_key(" ".join(shown.split()), key)[:MOST]
    hidden = [_words(secret) for secret in (key, *secrets)]
    for words in map(_words, _readings(kept)):
        if any(_repeats(words, secret) for secret in hidden) or (heard is not None and heard.repeats(words)):
            return f"({len(text)} characters, left out: they repeat the key, the prompt or an answer)"
    return kept


def _readings(text: str) -> Iterator[str]:
    """``text`` as it is and as it is meant where it is written otherwise, forwards and backwards."""
    plain = _plain(text)
    unescaped = html.unescape(unquote_plus(unquote_plus(plain)))
    for _ in range(2):  # text in JSON in JSON
        unescaped = ESCAPE.sub(_character, unescaped)
    runs = PACKED.findall(unescaped)
    packed = [run[begin:] for run in (*runs, "".join(runs)) for begin in range(4)]
    for reading in dict.fromkeys(
        (plain, unescaped, _of_hex(unescaped), _of_codes(unescaped), *map(_of_base64, packed))
    ):
        yield reading
        yield reading[::-1]


def _character(escape: re.Match[str]) -> str:
    """What an escape of JSON, C or Python stands for; a blank for one that moves the line."""
    hexadecimal, octal = escape[1] or escape[2] or escape[3], escape[4]
    number = int(hexadecimal, 16) if hexadecimal else int(octal or "40", 8)
    return chr(number) if number < 0x110000 else " "


def _of_hex(text: str) -> str:
    return bytes.fromhex("".join(HEX.findall(text))).decode("latin-1")


def _of_codes(text: str) -> str:
    return "".join(chr(int(number)) for number in CODE.findall(text))


def _of_base64(run: str) -> str:
    """The text that ``run`` packs, of the usual alphabet or the one for URLs."""
    whole = run[: len(run) // 4 * 4].translate(str.maketrans("-_", "+/"))
    return base64.b64decode(whole).decode("latin-1")


def _without_key(text: str, key: str) -> str:
    """``text`` with every part of ``key`` of ``KEY_PIECE`` characters or more masked, in capitals or not."""
    if not key:
        return text
    if len(key) < KEY_PIECE:
        return text.replace(key, "***")
    lower, hidden = text.lower(), key.lower()
    if len(lower) != len(text):  # a few letters are longer in lower case
        text = lower
    masked = [False] * len(text)
    for place in range(len(lower) - KEY_PIECE + 1):
        if lower[place : place + KEY_PIECE] in hidden:
            masked[place : place + KEY_PIECE] = [True] * KEY_PIECE
    runs = ("\0" if hide else sign for sign, hide in zip(text, masked, strict=True))
    return re.sub("\0+", "***", "".join(runs))


def _plain(text: str) -> str:
    """``text`` in plain letters, without accents and without signs that nobody sees."""
    if text.isascii():
        return text
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if unicodedata.category(sign) not in UNSEEN)


def _words(text: str) -> str:
    """The words of ``text`` in plain letters and lower case, a blank around each."""
    return " " + " ".join(WORD.findall(_plain(text).lower())) + " "


def _repeats(words: str, secret: str) -> bool:
    """Whether ``words`` hold a piece of ``secret``, however it is cut, or all its words where it is shorter."""
    letters, hidden = words.replace(" ", ""), secret.replace(" ", "")
    if len(hidden) < PIECE:
        return bool(hidden) and secret in words
    return any(letters[place : place + PIECE] in hidden for place in range(len(letters) - PIECE + 1))
