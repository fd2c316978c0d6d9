"""The values that an MMEngine-style config may spell out: literals, names, arithmetic, dict(...). Nothing is executed."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

MOST_BITS = 256
MOST_ITEMS = 100_000
"""Bounds of what arithmetic may build, so that `9 ** 9 ** 9` or `[0] * 10 ** 9` is an error and not a hang."""

ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
SIGNS: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class RefusedError(Exception):
    """A piece of Python that a config has no need of; `node` says where it stands."""

    def __init__(self, node: ast.AST, message: str) -> None:
        super().__init__(message)
        self.node = node


def evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression whose names are those assigned so far. Raises RefusedError."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.Name():
            if node.id not in names:
                raise RefusedError(node, f"the name `{node.id}` has no value here")
            return names[node.id]
        case ast.List() | ast.Tuple():
            return [evaluate(_no_star(item), names) for item in node.elts]
        case ast.Dict():
            return _entries(zip(node.keys, node.values, strict=True), names)
        case ast.Call(func=ast.Name(id="dict")):
            return _dict_call(node, names)
        case ast.UnaryOp() if type(node.op) in SIGNS:
            return SIGNS[type(node.op)](_number(node.operand, names))
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            return _arithmetic(node, names)
    raise RefusedError(
        node,
        f"{_what(node)} is not read: only literals, names, arithmetic, lists, dicts and dict(...) are, and nothing runs",
    )


def _no_star(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Starred):
        raise RefusedError(node, "`*` is not read: write the items out")
    return node


def _dict_call(node: ast.Call, names: Mapping[str, Any]) -> dict[str, Any]:
    if len(node.args) > 1:
        raise RefusedError(node, "dict(...) takes at most one dict before its keywords")
    built: dict[str, Any] = {}
    if node.args:
        built |= _mapping(node.args[0], names)
    keys = [None if keyword.arg is None else ast.Constant(keyword.arg) for keyword in node.keywords]
    return built | _entries(zip(keys, (keyword.value for keyword in node.keywords), strict=True), names)


def _entries(pairs: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """Build a dict; an entry without a key is `**mapping`. Keys become text, as JSON has them."""
    built: dict[str, Any] = {}
    for key, value in pairs:
        if key is None:
            built |= _mapping(value, names)
            continue
        name = evaluate(key, names)
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise RefusedError(key, f"a key must be text or a number, not {type(name).__name__}")
        built[str(name)] = evaluate(value, names)
    return built


def _mapping(node: ast.expr, names: Mapping[str, Any]) -> dict[str, Any]:
    value = evaluate(node, names)
    if not isinstance(value, dict):
        raise RefusedError(node, f"this must be a dict, not {type(value).__name__}")
    return value


def _number(node: ast.expr, names: Mapping[str, Any]) -> Any:
    value = evaluate(node, names)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RefusedError(node, f"a sign goes with a number, not with {type(value).__name__}")
    return value


def _arithmetic(node: ast.BinOp, names: Mapping[str, Any]) -> Any:
    left, right = evaluate(node.left, names), evaluate(node.right, names)
    _check_size(node, left, right)
    try:
        result = ARITHMETIC[type(node.op)](left, right)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RefusedError(node, f"this cannot be worked out: {error}") from error
    if isinstance(result, complex):
        raise RefusedError(node, "this is no real number")
    return result


def _check_size(node: ast.BinOp, left: Any, right: Any) -> None:
    """Refuse what would grow out of bounds, before it is worked out."""
    bits = 0
    match node.op:
        case ast.Pow() if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 0)
        case ast.Mult() if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() + right.bit_length()
        case ast.Mult():
            long, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(long, (str, list)) and isinstance(times, int) and len(long) * times > MOST_ITEMS:
                raise RefusedError(node, f"this would be longer than {MOST_ITEMS:,} items")
        case ast.Add() if isinstance(left, (str, list)) and isinstance(right, (str, list)):
            if len(left) + len(right) > MOST_ITEMS:
                raise RefusedError(node, f"this would be longer than {MOST_ITEMS:,} items")
        case ast.Mod() if isinstance(left, str):
            raise RefusedError(node, "text with % is not read: write it out")
    if bits > MOST_BITS:
        raise RefusedError(node, f"this number would have more than {MOST_BITS} bits")


def _what(node: ast.expr) -> str:
    match node:
        case ast.Call():
            return f"the call `{ast.unparse(node.func)[:40]}(...)`"
        case ast.Attribute() | ast.Subscript():
            return f"`{ast.unparse(node)[:40]}`"
        case ast.JoinedStr():
            return "an f-string"
        case ast.Constant():
            return f"the literal {ast.unparse(node)[:40]}"
    return f"{type(node).__name__} (`{ast.unparse(node)[:40]}`)"
