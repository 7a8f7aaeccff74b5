"""Text is text: a name that a stranger wrote is shown as it is and does nothing, one function for each kind of sink.

Sinks are the terminal, a line of CSV, Markdown, XML and a figure. A page escapes by itself (Jinja, ``html.escape``).
"""

from __future__ import annotations

import re
import unicodedata

LONGEST_LINE = 2_000  # characters of an error
FORMULA = re.compile(r"\s*[=+\-@\t\r]")  # what makes a spreadsheet compute a cell
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
MARKS = re.compile(
    r"[\\`*\[\]#|~$]|(?<![^\W_])_|_(?![^\W_])|^\s*[-+](?=\s)"
)  # that Markdown may read as more than itself
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "://": ":&#47;&#47;", "www.": "www&#46;"}  # GitHub's
JOINERS = "\u200c\u200d"  # letters of some scripts, and of emoji
CUT = " [...] "


def shown(text: str) -> str:
    r"""``text`` with each character that would act instead of being seen as its escape.

    These are control characters, line and paragraph separators, marks that turn the direction of writing, and halves of
    characters.

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
    r"""A message on one line, blanks drawn together, of at most ``LONGEST_LINE`` characters: the middle is left out.

    >>> one_line("no such\n  file")
    'no such file'
    >>> len(one_line("x" * 10**6)) <= LONGEST_LINE
    True
    """
    line = shown(" ".join(text.split()))
    if len(line) <= LONGEST_LINE:
        return line
    half = (LONGEST_LINE - len(CUT)) // 2
    return line[:half] + CUT + line[-half:]


def for_csv(value: object) -> object:
    """A cell of a table for spreadsheets: a text that one would compute begins with an apostrophe, which they hide.

    Numbers, and texts that are numbers, stay as they are.

    >>> for_csv('=HYPERLINK("http://x")'), for_csv(-1.5), for_csv("-1.5"), for_csv("prod")
    ('\\'=HYPERLINK("http://x")', -1.5, '-1.5', 'prod')
    """
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def for_markdown(text: str) -> str:
    r"""``text`` inside a line or a cell of Markdown, where it formats nothing, links nothing and calls nobody.

    >>> for_markdown("[prod](x) *a* | e2e_mean_s <b> @all")
    '\\[prod\\](x) \\*a\\* \\| e2e_mean_s &lt;b&gt; &#64;all'
    """
    marked = MARKS.sub(lambda found: found[0][:-1] + "\\" + found[0][-1], shown(text))
    return re.sub("[&<>@]|://|www\\.", lambda found: ENTITIES[found[0]], marked)


def fenced(text: str, kind: str = "console") -> list[str]:
    """Lines of Markdown that show ``text`` as it is, in a fence that it cannot close.

    >>> fenced("a ``` b")
    ['````console', 'a ``` b', '````']
    """
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{kind}", shown_lines(text), fence]


def for_xml(text: str) -> str:
    r"""``text`` without what XML cannot hold; its writer escapes the rest.

    >>> for_xml("a\x00b <c>")
    'a\\x00b <c>'
    """
    return "".join(_escaped(one) if (_acts(one) and one != "\n") or one in "\ufffe\uffff" else one for one in text)


def _acts(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and character not in JOINERS)


def _escaped(character: str) -> str:
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
