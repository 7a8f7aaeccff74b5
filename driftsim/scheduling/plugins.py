"""Policies and estimators of the user's own, by ``module:Class``, ``path/to/file.py:Class`` or entry point.

An entry point is declared by a package, in the group ``driftsim.policies`` or ``driftsim.estimators``. Code is loaded
where the user named it: on the command line, in Python, in a grid or a scenario. What a trace, a baseline or another
file of data names is not, unless the user named it as well or allowed the folder that it is in.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from driftsim.errors import InputError
from driftsim.scheduling.names import spelled

Made = TypeVar("Made")
PLUGIN_NOTE = "the run used the plug-in "  # begins the note on an exception that a plug-in may have led to
GROUPS = {"policy": "driftsim.policies", "estimator": "driftsim.estimators"}


_given: dict[str, type] = {}  # classes that were given as such, by the name that stands for each
_named: set[str] = set()  # plug-ins that the user named in this process
_allowed: set[Path] = set()  # folders below which data may name plug-ins


def give_class(kind: type, name: str = "") -> str:
    """Make the class ``kind`` known under ``name``, and return the name: ``module:Class`` unless another is given.

    Another class of that name, as a function makes one at each call, gets a number behind the name.
    """
    if not name:
        plain = name = f"{kind.__module__}:{kind.__qualname__}"
        number = 1
        while _given.get(name, kind) is not kind:
            number += 1
            name = f"{plain}#{number}"
    _given[name] = kind
    return name


def plugin_name(what: str | type) -> str:
    """The name of a policy or an estimator; a class becomes known under the name that is returned.

    Raises ``InputError`` for what is neither.
    """
    if not isinstance(what, str | type):
        raise InputError(f"a policy or an estimator is a name or a class, not {what!r:.80}")
    if isinstance(what, str):
        _named.update([spelled(what).base] if is_plugin(what) else [])
        return what
    return give_class(what)


def allow_plugins(folder: Path | str) -> None:
    """Let data name plug-ins whose file is below ``folder``. Raises ``InputError`` if that is no folder."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the plug-ins")
    _allowed.add(Path(folder).resolve())


def check_trusted(name: str, where: str) -> None:
    """Raise ``InputError`` if ``name``, which data at ``where`` holds, is code that the user neither named nor allowed.

    >>> check_trusted("sjf", "a header")
    >>> check_trusted("evil.py:X", "a header")
    Traceback (most recent call last):
    driftsim.errors.InputError: a header names the plug-in 'evil.py:X', and code that data names is not run; if you \
trust it, allow its folder: --allow-plugins DIR
    """
    base = spelled(name).base
    if not is_plugin(base) or base in _given or base in _named:
        return
    place = base.rpartition(":")[0]
    file = Path(place if place.endswith(".py") else place.replace(".", "/") + ".py")
    # A file that is there: the name of a module without one would stand for an installed module.
    if "\0" not in place and file.is_file() and any(file.resolve().is_relative_to(folder) for folder in _allowed):
        return
    raise InputError(
        f"{where} names the plug-in {name!r}, and code that data names is not run; if you trust it, allow its folder: "
        "--allow-plugins DIR"
    )


def plugin_names(what: str | type | Iterable[str | type]) -> list[str]:
    """The names of one policy or estimator, or of several."""
    several = isinstance(what, Iterable) and not isinstance(what, str | type)  # a class of enum members is one class
    return [plugin_name(one) for one in what] if several else [plugin_name(what)]  # type: ignore[union-attr, arg-type]


def given_classes(names: Iterable[str]) -> dict[str, type]:
    """Those of ``names`` that stand for a class that was given: what another process must be told."""
    return {base: _given[base] for base in (spelled(name).base for name in names) if base in _given}


def is_plugin(name: str) -> bool:
    """Whether ``name`` says where a class is."""
    return ":" in spelled(name).base


def plugin(name: str) -> type:
    """The class that ``module:Class`` or ``file.py:Class`` names. Raises ``InputError`` if there is none."""
    return _given[name] if name in _given else _loaded(name)


@cache
def _loaded(name: str) -> type:
    place, _, attribute = name.rpartition(":")
    module = _from_file(place) if place.endswith(".py") else _from_path(place)
    kind = getattr(module, attribute, None)
    if not inspect.isclass(kind):
        known = [
            key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        raise InputError(f"{name}: {place} has no class {attribute!r}; it has {', '.join(known) or 'none'}")
    return kind


def _from_file(place: str) -> ModuleType:
    file = Path(place).resolve()
    if not file.is_file():
        raise InputError(f"{place}: no such file; a plug-in is module:Class or path/to/file.py:Class")
    name = f"driftsim_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{place}: does not import ({type(error).__name__}: {error})") from None
    return module


def _from_path(place: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")  # the folder that the command is run in, as python -m has it
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise InputError(f"{place}: does not import ({type(error).__name__}: {error})") from None


def instance(name: str, kind: Callable[..., Made], *arguments: object, **parameters: object) -> Made:
    """``kind(*arguments, **parameters)``. Raises ``InputError`` if the constructor of ``name`` does not take these."""
    try:
        return kind(*arguments, **parameters)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # from inside of the constructor
        takes = "the admission alone" if arguments else "nothing"
        raise InputError(f"{name}: its constructor must take {takes} ({error})") from None


def declared(kind: str) -> dict[str, type]:
    """What installed packages declare of a ``kind``, policy or estimator, by name."""
    return {point.name: point.load() for point in entry_points(group=GROUPS[kind])}


def declared_names(kind: str) -> list[str]:
    """The names of these, without importing them."""
    return [point.name for point in entry_points(group=GROUPS[kind])]


def source_digest(kind: type) -> str:
    """SHA-256 of the source file that a plug-in's class is in, as hexadecimal."""
    return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()
