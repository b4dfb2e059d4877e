"""Small changes to a program, each of which its tests ought to notice.

The operators are the usual ones of mutation testing: constants, comparisons, boolean operands, conditions, arguments
and statements (Offutt et al., "An Experimental Determination of Sufficient Mutant Operators", 1996). What no test can
see is left as it is: types, docstrings, and the words of f-strings.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

Item = TypeVar("Item")

CONTEXT = 40
"""How many characters beside the difference a change shows."""

TYPES = frozenset({"annotation", "returns", "decorator_list", "pattern"})
STRUCT_OPTIONS = frozenset({"frozen", "kw_only", "slots", "eq", "order"})
"""Class keywords that say how a class may be used: the type checker's business."""


@dataclass(frozen=True)
class Mutant:
    """One change: `tree` is the whole program with it. `change` names it wherever its line moves: the class and
    function, or the name that is assigned to, what changes, and which it is of several alike."""

    line: int
    change: str
    tree: ast.Module = field(compare=False, repr=False)


@dataclass(frozen=True)
class _Place:
    """A node, the way to it (fields and indexes from the root), and the names of what it is in."""

    node: ast.AST
    way: tuple[tuple[str, int | None], ...] = ()
    scope: tuple[str, ...] = ()


def mutants(text: str) -> list[Mutant]:
    """Every change of the program, in the order of its lines."""
    tree = ast.parse(text)
    found = [_mutant(tree, place, after) for place in _places(_Place(tree)) for after in _changes(place.node)]
    alike: dict[str, list[Mutant]] = {}
    for mutant in sorted(found, key=lambda mutant: mutant.line):
        alike.setdefault(mutant.change, []).append(mutant)
    for change, some in alike.items():
        for number, mutant in enumerate(some[1:], start=2):
            some[number - 1] = replace(mutant, change=f"{change} ({number})")
    return sorted((mutant for some in alike.values() for mutant in some), key=lambda mutant: mutant.line)


def _places(parent: _Place) -> Iterator[_Place]:
    for name, value in ast.iter_fields(parent.node):
        if name in TYPES:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _fixed(parent.node, child):
                place = _Place(child, (*parent.way, (name, index)), _scope(parent.scope, child))
                yield place
                yield from _places(place)


def _scope(scope: tuple[str, ...], node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return (*scope, node.name)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return (*scope, ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0]))
    return scope


def _fixed(parent: ast.AST, child: ast.AST) -> bool:
    """Whether it has no say in what the program does: imports, docstrings, words of a sentence, aliases of types,
    the names that a module offers."""
    if isinstance(child, ast.Import | ast.ImportFrom):
        return True
    if isinstance(parent, ast.JoinedStr):
        return isinstance(child, ast.Constant)
    if isinstance(parent, ast.ClassDef) and isinstance(child, ast.keyword):
        return child.arg in STRUCT_OPTIONS
    if isinstance(parent, ast.Module) and isinstance(child, ast.Assign):
        return _alias(child.value) or ast.unparse(child.targets[0]) == "__all__"
    return isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)


def _alias(value: ast.expr) -> bool:
    match value:
        case ast.Name():
            return True
        case ast.Subscript(value=ast.Name(id="Literal")) | ast.Call(func=ast.Name(id="TypeVar")):
            return True
        case ast.BinOp(op=ast.BitOr()):
            return _alias(value.left) and _alias(value.right)
    return False


COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Constant():
            yield from _constants(node)
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                for other in COMPARISONS[type(operator)]:
                    yield _with(node, ops=[*operators[:index], other(), *operators[index + 1 :]])
        case ast.BoolOp(values=values):
            yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            for rest in _shorter(values):
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in ARITHMETIC:
            yield _with(node, op=ARITHMETIC[type(operator)]())
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.comprehension(ifs=[_, *_] as tests):
            for rest in _shorter(tests):
                yield _with(node, ifs=rest)
        case ast.Subscript(value=whole, slice=ast.Slice(), ctx=ast.Load()):
            yield whole
        case ast.Starred():
            yield _with(node, value=ast.Tuple([], ast.Load()))
        case ast.Call():
            yield from _calls(node)
    if isinstance(node, ast.stmt):
        yield from _statements(node)


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.If():
            yield _with(node, test=ast.Constant(True))
            yield _with(node, test=ast.Constant(False))
        case ast.While():
            yield _with(node, test=ast.Constant(False))
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Break():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Pass()
            yield ast.Break()
        case ast.Return(value=value) if value is not None and not _none(value):
            yield _with(node, value=ast.Constant(None))


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool():
            yield _with(node, value=not node.value)
        case int():
            yield _with(node, value=node.value + 1)
            if node.value > 0:
                yield _with(node, value=node.value - 1)
        case str():
            yield _with(node, value=f"XX{node.value}")


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    match node:
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=[_, _, *_]):
            yield from (value for value in node.args if not isinstance(value, ast.Starred))
            yield _with(node, func=ast.Name("max" if name == "min" else "min", ast.Load()))
        case ast.Call(func=ast.Name(id="sorted"), args=[_]):
            yield _with(node, func=ast.Name("list", ast.Load()), keywords=[])
        case ast.Call(func=ast.Name(id="any" | "all" as name)):
            yield _with(node, func=ast.Name("all" if name == "any" else "any", ast.Load()))
        case ast.Call(func=ast.Attribute(attr="lower" | "upper" | "strip", value=text), args=[], keywords=[]):
            yield text
        case ast.Call(args=[first, second]) if _exchangeable(first, second):
            yield _with(node, args=[second, first])
    for rest in _shorter(node.keywords):
        yield _with(node, keywords=rest)


def _exchangeable(first: ast.expr, second: ast.expr) -> bool:
    starred = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
    return not starred and ast.dump(first) != ast.dump(second)


def _shorter(items: list[Item]) -> Iterator[list[Item]]:
    """The list without one of its items."""
    for index in range(len(items)):
        yield [*items[:index], *items[index + 1 :]]


def _none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _mutant(tree: ast.Module, place: _Place, after: ast.AST) -> Mutant:
    changed = _replaced(tree, place.way, after)
    assert isinstance(changed, ast.Module)
    ast.fix_missing_locations(changed)
    line = min((child.lineno for child in ast.walk(place.node) if hasattr(child, "lineno")), default=0)
    before, after_text = _difference(_shown(place.node), _shown(after))
    return Mutant(line, f"{'.'.join(place.scope)}: {before} -> {after_text}", changed)


def _replaced(node: ast.AST, way: tuple[tuple[str, int | None], ...], after: ast.AST) -> ast.AST:
    """The tree with that one node changed; what is beside the way to it is shared with the given tree."""
    if not way:
        return after
    (name, index), *rest = way
    value = getattr(node, name)
    if index is None:
        return _with(node, **{name: _replaced(value, tuple(rest), after)})
    return _with(node, **{name: [*value[:index], _replaced(value[index], tuple(rest), after), *value[index + 1 :]]})


def _shown(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        return f"{type(node).__name__.lower()} {ast.unparse(node.test)}"
    return " ".join(ast.unparse(node).split())


def _difference(before: str, after: str) -> tuple[str, str]:
    """Both texts without what they have in common, but for a few characters beside the difference."""
    shortest = min(len(before), len(after))
    start = next((n for n in range(shortest) if before[n] != after[n]), shortest)
    end = next((n for n in range(shortest - start) if before[-1 - n] != after[-1 - n]), shortest - start)
    first, last = max(0, start - CONTEXT), max(0, end - CONTEXT)

    def shown(text: str) -> str:
        return ("…" if first else "") + text[first : len(text) - last] + ("…" if last else "")

    return shown(before), shown(after)
