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
from collections.abc import Collection, Iterable
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
    places: dict[str, set[str]] = {}  # a name in the code -> what is imported under it
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
            for alias in node.names:
                path = module + alias.name
                names.add(alias.name)
                paths.add(path)
                short = alias.asname or (alias.name if module else alias.name.split(".")[0])
                places.setdefault(short, set()).add(path if module or alias.asname else short)
    for node in nodes:
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
            dotted = ast.unparse(node)  # `a.b.c`, or what is no such chain
            base, *rest = dotted.split(".") if re.fullmatch(r"[\w.]+", dotted) else [""]
            paths |= {".".join([place, *rest]) for place in places.get(base, ())}
    for path in paths:
        parts = path.split(".")
        names |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return names


def answer_sources(cells: Iterable[str], answers: Collection[str], given: Collection[str] = ()) -> list[str]:
    """The pieces of a notebook that an answer consists of: its definitions, and what of the notebook these use.

    Imports that bind a name which is used count as its definition; the `given` names, earlier answers that the grader
    replaces, do not. A name that the notebook does not define is taken to come from its `from … import *`, where it has
    any. Where the notebook writes into the checks (`checks.probe = …`), that is a piece of every answer.

    Raises RecursionError where the code is nested too deeply to be read.
    """
    defined: dict[str, list[str]] = {}
    changed: set[str] = set()
    for cell in cells:
        for node in _parse(cell).body:
            changed |= _changed(node)
            for name in {*_bound(node), *_changed(node)}:
                defined.setdefault(name, []).append(ast.unparse(node))
    stars = [node.module for piece in defined.get("*", ()) for node in ast.walk(_parse(piece))
             if isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and node.module]  # fmt: skip
    wanted, seen, pieces = list(answers), set(given), []
    wanted += [name for name in changed if CHECKS in used_names(*defined[name])]
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in defined and not hasattr(builtins, name):
            pieces += [f"from {module} import {name}" for module in stars]
        for piece in defined.get(name, ()):
            pieces.append(piece)
            wanted += _read_from_outside(piece)
    return pieces


def _read_from_outside(piece: str) -> set[str]:
    """The names that a piece of code takes from the notebook: not a function's own variables."""
    try:
        scopes = [symtable.symtable(piece, "cell", "exec")]
    except (SyntaxError, ValueError, RecursionError):  # then rather too many
        return {node.id for node in ast.walk(_parse(piece)) if isinstance(node, ast.Name)}
    names: set[str] = set()
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        top = scope.get_type() == "module"
        names |= {s.get_name() for s in scope.get_symbols() if (s.is_referenced() if top else s.is_global())}
    return names


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


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement gives a value, its blocks included: what `if True: def f` binds is f."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):  # and what it declares to be global
        return {node.name}.union(*(inner.names for inner in ast.walk(node) if isinstance(inner, ast.Global)))
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    own = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
    if isinstance(node, ast.MatchAs | ast.MatchStar | ast.ExceptHandler) and node.name:
        own.add(node.name)
    if isinstance(node, ast.MatchMapping) and node.rest:
        own.add(node.rest)
    return own.union(*map(_bound, ast.iter_child_nodes(node)))


def _changed(node: ast.stmt) -> set[str]:
    """The names into whose objects a statement writes: f for `f.attribute = …` and for `f[key] = …`."""
    found = set()
    for target in ast.walk(node):
        if isinstance(target, ast.Attribute | ast.Subscript) and isinstance(target.ctx, ast.Store):
            base: ast.expr = target
            while isinstance(base, ast.Attribute | ast.Subscript):
                base = base.value
            found |= {base.id} if isinstance(base, ast.Name) else set()
    return found


def source_of(answer: Any) -> str:
    """The code of a function or a class of this process; empty where Python cannot find it."""
    if isinstance(answer, type):  # of a class that a notebook defines, Python finds the methods, not the whole
        return "\n".join(source_of(method) for method in vars(answer).values() if inspect.isfunction(method))
    try:
        return textwrap.dedent(inspect.getsource(answer)) if inspect.isfunction(answer) else ""
    except (OSError, TypeError):
        return ""
