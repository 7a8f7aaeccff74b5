"""What MkDocs does beyond Markdown: the Python reference from the docstrings, and links that leave docs/.

A page may link to any file of the repository, as it must to be readable there. A figure is taken into the site from
where it lies; any other file becomes a link to its place in the repository's home.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import driftsim as ds

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
HOME = "https://github.com/driftsim/driftsim"
LINK = re.compile(r"(?P<before>!?\[[^\]]*\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?P<after>\))")
FENCED = re.compile(r"^(?P<fence>`{3,})[^\n]*\n.*?^(?P=fence)\n?", re.MULTILINE | re.DOTALL)
ASKED = re.compile(r"^::: (?P<names>[\w ]+)$", re.MULTILINE)
SOURCE_ONLY = re.compile(r"<!-- source only -->.*?<!-- end source only -->\n*", re.DOTALL)  # what a site need not say
CELL = re.compile(r"(?<=<td><code>)[^<]*")
GLOSSARY = re.compile(r"<table>(?P<head>\s*<thead>(?:(?!</thead>).)*<th[^>]*>meaning</th>\s*</tr>)", re.DOTALL)
FOREIGN = re.compile(r"""(?:\bsrc(?:set)?=|<link[^>]*\bhref=)["']?(?:https?:)?//[^"'\s>]+""")
FIGURES = "figures"  # where figures from elsewhere lie in the site
WIDTH = 88  # characters of a signature's line


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the Python reference, and lead links that leave docs/ to where they should go."""
    from mkdocs.structure.files import File

    place = Path(page.file.src_uri)

    def keep(figure: Path) -> str:
        uri = f"{FIGURES}/{figure.relative_to(ROOT).as_posix()}"
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(figure)))
        return os.path.relpath(uri, place.parent)

    return redirected(with_api(markdown), DOCS / place, keep)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let a list of names in a table's cell break after its commas, and a glossary be stacked on a narrow screen."""
    html = GLOSSARY.sub(r"<table data-stacked>\g<head>", html)
    return CELL.sub(lambda cell: cell[0].replace(",", ",<wbr>"), html)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would make its reader's browser ask another server."""
    if found := FOREIGN.search(output):
        from mkdocs.exceptions import PluginError

        raise PluginError(f"{page.file.src_uri} would load {found[0]}; keep it in the repository")
    return output


def redirected(markdown: str, file: Path, keep: Any) -> str:
    """``markdown`` of ``file`` with every link out of docs/ led to a figure that is kept or to the repository."""

    def lead(link: re.Match[str]) -> str:
        target = link["target"]
        if ":" in target:
            return link[0]
        path = (file.parent / target).resolve()
        if path.is_relative_to(DOCS) or not path.is_relative_to(ROOT):
            return link[0]
        if link["before"].startswith("!"):
            return f"{link['before']}{keep(path)}{link['after']}"
        kind = "tree" if path.is_dir() else "blob"
        place = path.relative_to(ROOT).as_posix()
        return f"{link['before']}{HOME}/{kind}/main/{place}{link['anchor'] or ''}{link['after']}"

    return outside_fences(markdown, lambda text: LINK.sub(lead, text))


def outside_fences(markdown: str, change: Any) -> str:
    """``markdown`` with ``change`` made to all text that is not in a code block."""
    parts, end = [], 0
    for fence in FENCED.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


# -- the Python reference


def with_api(markdown: str) -> str:
    """``markdown`` with each line ``::: name name`` replaced by what the docstrings of these names say."""
    markdown = SOURCE_ONLY.sub("", markdown)
    return ASKED.sub(lambda asked: "\n\n".join(map(described, asked["names"].split())), markdown)


def described(name: str) -> str:
    """A heading, the signature and the docstring of ``driftsim.name``; of a class also its fields and methods."""
    value = getattr(ds, name)
    parts = [f"### `{name}` {{#{name}}}"]
    if inspect.isclass(value):
        parts += [_class_signature(name, value), *_text(value), _fields(value), *_members(value)]
    else:
        parts += [_signature(f"ds.{name}", value), *_text(value)]
    return "\n\n".join(part for part in parts if part)


def _signature(name: str, function: Any, *, bound: bool = False) -> str:
    parts = [str(one) for one in _parameters(function, bound=bound)]
    returned = inspect.signature(function).return_annotation
    after = "" if returned is inspect.Signature.empty else f" -> {_plain(returned)}"
    line = f"{name}({', '.join(parts)}){after}"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){after}"
    return f"```python {{ .api }}\n{line}\n```"


def _parameters(function: Any, *, bound: bool) -> Iterator[str]:
    star = False
    for place, one in enumerate(inspect.signature(function).parameters.values()):
        if bound and place == 0:
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            star = True
            yield "*"
        prefix = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        star = star or one.kind is one.VAR_POSITIONAL
        kind = "" if one.annotation is one.empty else f": {_plain(one.annotation)}"
        default = "" if one.default is one.empty else f"{' = ' if kind else '='}{_default(one.default)}"
        yield f"{prefix}{one.name}{kind}{default}"


def _plain(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation.strip("'\"")
    if annotation is type(None):
        return "None"
    text = (
        annotation.__name__ if inspect.isclass(annotation) and not hasattr(annotation, "__args__") else str(annotation)
    )
    return re.sub(r"\b(?:[a-z_]\w*\.)+", "", text)


def _default(value: Any) -> str:
    if inspect.isfunction(value):
        return value.__name__
    text = repr(value)
    return text if len(text) <= WIDTH else "..."


def _class_signature(name: str, kind: type) -> str:
    if getattr(kind, "_is_protocol", False):
        return f"```python {{ .api }}\nclass {name}(Protocol)\n```"
    if issubclass(kind, Exception):
        return f"```python {{ .api }}\nclass {name}({', '.join(base.__name__ for base in kind.__bases__)})\n```"
    return f"```python {{ .api }}\nclass {name}\n```"


def _fields(kind: type) -> str:
    rows: list[tuple[str, str, str]] = []
    if hasattr(kind, "model_fields"):
        for name, field in kind.model_fields.items():
            rows.append((name, _plain(field.annotation), field.description or ""))
    elif dataclasses.is_dataclass(kind):
        comments = _comments(kind)
        for one in dataclasses.fields(kind):
            if not one.name.startswith("_"):
                rows.append((one.name, _plain(one.type), comments.get(one.name, "")))
    if not rows:
        return ""
    told = any(meaning for _, _, meaning in rows)
    head = "| field | type | meaning |\n|---|---|---|\n" if told else "| field | type |\n|---|---|\n"
    cells = [[f"`{name}`", "`" + kind.replace("|", "\\|") + "`", *([meaning.replace("|", "\\|")] if told else [])]
             for name, kind, meaning in rows]  # fmt: skip
    return head + "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _comments(kind: type) -> dict[str, str]:
    """What the comment beside each field of a dataclass says."""
    found = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            source = inspect.getsource(base)
            found.update(dict(re.findall(r"^    (\w+): [^#\n]*#\s*(.+)$", source, re.MULTILINE)))
    return found


def _members(kind: type) -> Iterator[str]:
    for name, value in _public(kind):
        if isinstance(value, property) or not (callable(value) or isinstance(value, classmethod | staticmethod)):
            function = getattr(value, "fget", None) or getattr(value, "func", None)
            if function is not None and function.__doc__:
                returned = inspect.signature(function).return_annotation
                yield f"#### `{kind.__name__}.{name}` {{#{kind.__name__}.{name}}}"
                yield f"```python {{ .api }}\n{name}: {_plain(returned)}\n```"
                yield from _text(function)
        else:
            function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if not function.__doc__:
                continue
            owner = kind.__name__ if isinstance(value, classmethod | staticmethod) else kind.__name__.lower()
            yield f"#### `{kind.__name__}.{name}` {{#{kind.__name__}.{name}}}"
            yield _signature(f"{owner}.{name}", function, bound=not isinstance(value, staticmethod))
            yield from _text(function)


def _public(kind: type) -> Iterable[tuple[str, Any]]:
    """The methods and properties that driftsim itself gives ``kind``, in the order of their definition."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("driftsim"):
            found.update({name: value for name, value in vars(base).items() if not name.startswith(("_", "model_"))})
    return found.items()


def _text(value: Any) -> Iterator[str]:
    """The paragraphs of a docstring: prose, what each parameter is as a list, examples as code."""
    text = (inspect.getdoc(value) or "").replace("``", "`")
    names = set() if inspect.isclass(value) and not dataclasses.is_dataclass(value) else _names(value)
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.lstrip().startswith(">>>"):
            yield f"```pycon\n{inspect.cleandoc(paragraph)}\n```"
        elif paragraph.startswith("    "):
            yield f"```text\n{inspect.cleandoc(paragraph)}\n```"
        elif paragraph:
            yield "\n".join(_listed(" ".join(paragraph.split()), names))


def _names(value: Any) -> set[str]:
    try:
        return set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return set()


def _listed(paragraph: str, names: set[str]) -> list[str]:
    """``paragraph`` as it is, or, where it says ``name: what it is`` of several parameters, as a list of them."""
    starts = [
        found
        for found in re.finditer(r"(?:^|(?<=[.;)] ))((?:\w+, )*\w+): ", paragraph)
        if set(found[1].split(", ")) <= names
    ]
    if not starts:
        return [paragraph]
    before = paragraph[: starts[0].start()].strip()
    lines = [before, ""] if before else []
    for found, after in zip(starts, [*starts[1:], None], strict=True):
        meaning = paragraph[found.end() : after.start() if after else None].strip()
        told = ", ".join(f"`{name}`" for name in found[1].split(", "))
        lines.append(f"* {told}: {meaning}")
    return lines
