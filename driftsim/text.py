"""Text is text: a name that a stranger wrote is shown as it is and does nothing, one function for each kind of sink.

Sinks are the terminal, figures, CSV, HTML, Markdown, XML and the shell. JSON alone holds every text to the letter, with
its own escapes. A name is one line wherever it is shown, so that it cannot pass for a line of ours.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable
from html import escape

LONGEST_LINE = 800  # characters of an error
LONGEST_CELL = 200  # characters of a cell of a printed table; JSON and CSV have all of them
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # what makes a spreadsheet compute a cell
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
FORMATTING = re.compile(r"[\\`*\[\]#|~$]|(?<![^\W_])_|_(?![^\W_])")  # what Markdown may read as more than itself
BEGINNING = re.compile(
    r"\d{1,9}(?=[.)](\s|$))|[-+](?=\s|$)|[-=]+$"
)  # of a line, that makes a list, a heading or a rule
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "://": ":&#47;&#47;", "www.": "www&#46;"}
CALLING = re.compile(r"[@#](?=\w)|:(?=[\w+-]+:)")  # what a forge links, however it is escaped, unless it is parted
PARTED = "<!-- -->"
JOINERS = "\u200c\u200d"  # letters of some scripts, and of emoji
CUT = " [...] "


def shown(text: str) -> str:
    r"""``text`` with each character that would act instead of being seen as its escape.

    These are control characters, line and paragraph separators, marks that turn the direction of writing or have no
    width, halves of characters, and what is none.

    >>> shown("a\x1b[31m\u202eb\n")
    'a\\x1b[31m\\u202eb\\n'
    >>> shown("größe 大きさ [bold]")
    'größe 大きさ [bold]'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _acts(character) else character for character in text)


def shown_lines(text: str) -> str:
    r"""The same of a text of several lines, whose line breaks stay.

    >>> shown_lines("a\n\x07b")
    'a\n\\x07b'
    """
    return "\n".join(map(shown, text.split("\n")))


def one_line(text: str) -> str:
    r"""A message on one line of at most ``LONGEST_LINE`` characters.

    >>> one_line("no such\nfile")
    'no such\\nfile'
    >>> len(one_line("x" * 10**6)) <= LONGEST_LINE
    True
    """
    return short(text.strip(), LONGEST_LINE)


def short(text: str, most: int = LONGEST_CELL) -> str:
    """``shown`` of ``text`` in at most ``most`` characters: what is too much is left out of its middle.

    >>> short("0123456789" * 3, 17)
    '01234 [...] 56789'
    """
    ends = text if len(text) <= most else text[:most] + text[-most:]  # a text may be long, and its escapes longer
    line = shown(ends)
    if len(line) <= most and ends == text:
        return line
    half = (most - len(CUT)) // 2
    return line[:half] + CUT + line[-half:]


def for_csv(value: object) -> object:
    r"""A cell of a table for spreadsheets: a text as it is shown, on one line.

    One that a spreadsheet would compute begins with an apostrophe. Numbers, and texts that are numbers, stay.

    >>> for_csv('=HYPERLINK("http://x")'), for_csv(-1.5), for_csv("-1.5"), for_csv("prod\x1b")
    ('\'=HYPERLINK("http://x")', -1.5, '-1.5', 'prod\\x1b')
    """
    if not isinstance(value, str):
        return value
    text = shown(value)
    return f"'{text}" if FORMULA.match(value) and not NUMBER.fullmatch(value) else text


def for_html(text: str) -> str:
    r"""``text`` inside an element of HTML, or in a quoted attribute.

    >>> for_html("<b>\x00")
    '&lt;b&gt;\\x00'
    """
    return escape(shown_lines(text))


def for_markdown(text: str) -> str:
    r"""``text`` as a line or a cell of Markdown, where it formats nothing, links nothing and calls nobody.

    >>> for_markdown("[prod](x) *a* | e2e_mean_s <b> @all")
    '\\[prod\\](x) \\*a\\* \\| e2e_mean_s &lt;b&gt; @<!-- -->all'
    >>> for_markdown("1. one"), for_markdown("- one"), for_markdown("1.5")
    ('1\\. one', '\\- one', '1.5')
    """
    line = shown(text)
    blanks = len(line) - len(line.lstrip(" "))
    begun = BEGINNING.match(line, blanks)
    cut = begun.end() if begun and begun[0].isdecimal() else blanks
    rest = ("\\" if begun else "") + _markdown(line[cut:])
    return "&#32;" * blanks + line[blanks:cut] + rest


def _markdown(text: str) -> str:
    marked = FORMATTING.sub(lambda found: "\\" + found[0], text)
    plain = re.sub("[&<>]|://|www\\.", lambda found: ENTITIES[found[0].lower()], marked, flags=re.IGNORECASE)
    return CALLING.sub(lambda found: found[0] + PARTED, plain)


def fenced(text: str, kind: str = "console") -> list[str]:
    """Lines of Markdown that show ``text`` as it is, in a fence that it cannot close.

    >>> fenced("a ``` b")
    ['````console', 'a ``` b', '````']
    """
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{kind}", *shown_lines(text).split("\n"), fence]


def for_xml(text: str) -> str:
    r"""``text`` without what XML cannot hold; its writer escapes the rest.

    >>> for_xml("a\x00b <c>")
    'a\\x00b <c>'
    """
    return shown_lines(text)


def for_shell(words: Iterable[str]) -> str:
    r"""A command line that a shell reads as ``words``, on one line, whatever a path holds.

    >>> for_shell(["driftsim", "show", "my runs", "a\nb'"])
    "driftsim show 'my runs' $'a\\nb\\''"
    """
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if shown(word) == word:
        return shlex.quote(word)
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(_octets(one) if _acts(one) else one for one in plain) + "'"


def _octets(character: str) -> str:
    if character in "\n\r\t":
        return _escaped(character)
    way = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"  # the former: a byte of a path
    return "".join(f"\\{octet:03o}" for octet in character.encode("utf-8", way))


def _acts(character: str) -> bool:
    kind = unicodedata.category(character)
    if kind in ("Cf", "Cn"):  # what turns the direction or has no width; what is no character, as U+FFFF
        return character not in JOINERS if kind == "Cf" else ord(character) & 0xFFFE == 0xFFFE
    return kind in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
