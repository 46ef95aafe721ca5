"""Which pieces of a notebook an answer consists of, and which names they use: read from its code, without running it.

It sees what is written there. Who hides a name from it (getattr, exec) means to, and a reader of the code sees that.
"""

import ast
import builtins
import functools
import inspect
import re
import symtable
import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from c2f_course.grading.worker import as_python

CHECKS = "c2f_course.tasks"  # where the right answers are computed, so that no answer may use it


def used_names(*sources: str) -> set[str]:
    """The attributes and imported names in pieces of code: `F.layer_norm` gives "layer_norm", `from a.b import c` gives
    c, a, a.b and a.b.c, as does `b.c` beside a `from a import b`.
    """
    nodes = [node for source in sources for node in ast.walk(_parse(source))]
    names: set[str] = set()
    paths: set[str] = set()
    places: defaultdict[str, set[str]] = defaultdict(set)  # a name in the code -> what is imported under it
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if getattr(node, "module", None) else ""
            for alias in node.names:
                paths.add(module + alias.name)
                whole = module or alias.asname  # else `import a.b` binds a
                place = module + alias.name if whole else alias.name.split(".")[0]
                places[alias.asname or (alias.name if module else place)].add(place)
    for node in nodes:
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
            base, _, rest = ast.unparse(node).partition(".")
            paths |= {f"{place}.{rest}" for place in places.get(base, ())}
    for path in paths:
        parts = path.split(".")
        names |= {parts[-1], *(".".join(parts[:count]) for count in range(1, len(parts) + 1))}
    return names


def answer_sources(cells: Iterable[str], answers: Collection[str], given: Collection[str] = ()) -> list[str]:
    """The pieces of a notebook that an answer consists of: its definitions, and what of the notebook these use.

    Imports that bind a name which is used count as its definition; the `given` names, earlier answers that the grader
    replaces, do not. A name that the notebook does not define is taken to come from its `from … import *`, where it has
    any. Where the notebook writes into the checks (`checks.probe = …`), that is a piece of every answer.

    Raises RecursionError where the code is nested too deeply to be read.
    """
    defined: defaultdict[str, list[str]] = defaultdict(list)
    changed: set[str] = set()
    stars: set[str] = set()
    for cell in cells:
        for node in _parse(cell).body:
            piece = ast.unparse(node)
            changed |= _changed(node)
            for name in _bound(piece) | _changed(node):
                defined[name].append(piece)
            imports = (n for n in ast.walk(node) if isinstance(n, ast.ImportFrom) and n.names[0].name == "*")
            stars |= {each.module for each in imports if each.module}
    wanted, seen, pieces = list(answers), set(given), []
    wanted += [name for name in changed if CHECKS in used_names(*defined[name])]
    while wanted:
        name = wanted.pop()
        if name not in seen:
            seen.add(name)
            pieces += defined[name]
            wanted += [used for piece in defined[name] for used in _read_from_outside(piece)]
            if not defined[name] and not hasattr(builtins, name):
                pieces += [f"from {module} import {name}" for module in stars]
    return pieces


def _scopes(piece: str) -> Iterator[symtable.SymbolTable]:
    """The scope of a piece of code and all within it; none where Python would not compile it."""
    try:
        scopes = [symtable.symtable(piece, "cell", "exec")]
    except (SyntaxError, ValueError):
        return
    while scopes:
        yield (scope := scopes.pop())
        scopes += scope.get_children()


def _bound(piece: str) -> set[str]:
    """The names that a piece of code gives a value, blocks and `global` included: what `if True: def f` binds is f."""
    symbols = [(scope.get_type() == "module", s) for scope in _scopes(piece) for s in scope.get_symbols()]
    return {
        s.get_name() for top, s in symbols if (s.is_assigned() or s.is_imported()) and (top or s.is_declared_global())
    }


def _read_from_outside(piece: str) -> set[str]:
    """The names that a piece of code takes from the notebook: not a function's own variables."""
    symbols = [(scope.get_type() == "module", s) for scope in _scopes(piece) for s in scope.get_symbols()]
    return {s.get_name() for top, s in symbols if (s.is_referenced() if top else s.is_global())}


def _changed(node: ast.stmt) -> set[str]:
    """The names into whose objects a statement writes: f for `f.attribute = …` and for `f[key] = …`."""
    targets = (n for n in ast.walk(node) if isinstance(n, ast.Attribute | ast.Subscript))
    written = (re.match(r"\w+", ast.unparse(target)) for target in targets if isinstance(target.ctx, ast.Store))
    return {base[0] for base in written if base}


@functools.lru_cache(maxsize=4096)
def _parse(source: str) -> ast.Module:
    """Code as the tree of what the worker would run; what is no Python is an empty tree.

    Raises RecursionError for code that is nested too deeply: Python might run it, with a higher limit.
    """
    try:
        return ast.parse(as_python(source))
    except (SyntaxError, ValueError):
        return ast.Module([], [])
    except MemoryError:  # which is what the parser raises before its own stack is full
        raise RecursionError("the code is nested too deeply") from None


def source_of(answer: Any) -> str:
    """The code of a function or a class of this process; empty where Python cannot find it."""
    if isinstance(answer, type):  # of a class that a notebook defines, Python finds the methods, not the whole
        return "\n".join(source_of(method) for method in vars(answer).values() if inspect.isfunction(method))
    try:
        return textwrap.dedent(inspect.getsource(answer)) if inspect.isfunction(answer) else ""
    except (OSError, TypeError):
        return ""
