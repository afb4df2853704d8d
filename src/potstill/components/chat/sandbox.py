"""Jinja's immutable sandbox with limits of time and size, for templates that come with a model.

A template is a program from outside. The sandbox keeps it from the machine; the limits keep it from running for hours
or filling the memory, by nested loops, by `'a' * 10**9`, or by a text that doubles. They count what a template does,
inside the process and on every platform, and the text that a template within the limits gives is Jinja's own.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, MappingView
from functools import wraps
from typing import Any

from jinja2 import Template, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

__all__ = ["LimitedEnvironment", "TemplateLimit"]

_SECONDS = 5.0
"""Time for one rendering; an ordinary one takes milliseconds."""
_LONGEST = 1 << 24
"""Items of one text or list, such as characters."""
_MOST_BYTES = 1 << 29
"""Bytes of all texts and lists that one rendering makes, also of those that it drops."""
_MOST_PARTS = 1 << 17
"""Parts of one value at all depths, counted as often as they appear: `[x, x]` has twice those of x."""
_DEEPEST_VALUE = 150  # lists within lists; Python's own repr calls itself for each
_LONGEST_SOURCE = 1 << 20
_DEEPEST = 150  # nested nodes; Jinja and Python's own compiler call themselves for each
_WIDEST = 100_000  # characters that one value is filled up to, or items that a list is cut into
_MOST_BITS = 100_000  # of a whole number
_LONGEST_SLOW = 100_000  # characters for filters that take more than linear time

_FILLED = frozenset(
    {"batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "tojson", "wordwrap", "zfill"}
)
_SLOW = frozenset({"pprint", "striptags", "title", "urlize", "wordwrap", "xmlattr"})
_ITEMWISE = frozenset(
    {"attr", "batch", "count", "d", "default", "dictsort", "first", "groupby", "items", "last", "length", "list"}
    | {"map", "max", "min", "random", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "sort"}
    | {"sum", "unique"}
)
"""Filters that never write their value as text."""
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\*|\d{6})|\{[^{}]*\d{6}[^{}]*\}|\{[^{}]*:[^{}]*\{")
"""A format whose width has six digits or comes from a value."""


class TemplateLimit(Exception):
    """A template takes too long, or makes too large a text."""


class _Generation(Extension):
    """{% generation %}...{% endgeneration %} marks what transformers trains on; it is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Counting(NodeTransformer):
    """Counts each turn of a loop and each call of a macro, and bounds `~` and what holds other values."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _counted(node))
        if node.test is not None:
            node.test = nodes.And(_step(node), node.test).set_lineno(node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _counted(node))
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _counted(node))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        joined = nodes.EnvironmentAttribute("join_texts")
        return nodes.Call(joined, node.nodes, [], None, None).set_lineno(node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._weighed(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._weighed(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._weighed(node) if node.ctx == "load" else node

    def _weighed(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        if node.find(nodes.Name) is None:  # its size is that of the source
            return node
        weigh = nodes.EnvironmentAttribute("weigh")
        return nodes.Call(weigh, [node], [], None, None).set_lineno(node.lineno)


def _step(node: nodes.Node) -> nodes.Expr:
    step = nodes.EnvironmentAttribute("count_step()")  # Jinja writes the name into its program
    step.set_lineno(node.lineno)
    return step


def _counted(node: nodes.Node) -> nodes.Node:
    return nodes.ExprStmt(_step(node)).set_lineno(node.lineno)


class _LimitedTemplate(Template):
    """A template whose rendering starts the clock."""

    environment: LimitedEnvironment

    def render(self, *args: Any, **kwargs: Any) -> str:
        self.environment.start()
        return super().render(*args, **kwargs)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and renders one template; see the module. Raises TemplateLimit."""

    template_class = _LimitedTemplate
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        extensions = [loopcontrols, _Generation]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=self.weigh)
        del self.globals["lipsum"]  # a generator of filler text
        self.filters.update({name: self._limited_filter(name, run) for name, run in self.filters.items()})
        self.start()

    def add_filter(self, name: str, run: Callable[..., Any]) -> None:
        """Add a filter, with the limits that its name has."""
        self.filters[name] = self._limited_filter(name, run)

    def start(self) -> None:
        """Begin to count anew."""
        self._deadline = time.monotonic() + _SECONDS
        self._bytes = 0

    # ---- called by the compiled template ----

    def count_step(self) -> bool:
        """Count a turn of a loop or a call of a macro."""
        if time.monotonic() > self._deadline:
            raise TemplateLimit(f"it runs for more than {_SECONDS:.0f} s")
        return True

    def weigh(self, value: Any) -> Any:
        """The value, if its text has a bearable length; Jinja calls this for all that a template writes."""
        if isinstance(value, str):
            return value
        parts = weight = 0
        level = [value]
        for _ in range(_DEEPEST_VALUE):
            inner: list[Any] = []
            for each in level:
                if isinstance(each, str | bytes):
                    weight += len(each)
                elif isinstance(each, int):
                    weight += each.bit_length()
                elif (held := _held(each)) is not None:
                    parts += len(held)
                    self._require(parts, _MOST_PARTS)
                    inner.extend(held)
            self._require(weight)
            if not inner:
                return value
            level = inner
        raise TemplateLimit("its values are nested too deeply")

    def join_texts(self, *parts: Any) -> str:
        """The value of `a ~ b ~ c`."""
        return self.concat(map(str, parts))

    def concat(self, parts: Iterable[str]) -> str:
        """Texts as one text; Jinja joins all that a template writes with it."""
        kept, length = [], 0
        for part in parts:
            kept.append(part)
            length += len(part)
            self._require(length)
        text = "".join(kept)
        self._made(text)
        return text

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See Jinja."""
        if operator == "+" and _sized(left) and _sized(right):
            self._require(len(left) + len(right))
        elif operator == "*":
            self._require_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _require_bits(left.bit_length() * abs(right))
        elif operator == "%" and isinstance(left, str):
            _require_narrow(left)
            self.weigh(right)
        return self._made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """See Jinja. Methods of texts are checked before they run, and so is what other functions may write."""
        if not isinstance(__obj, Macro | LoopContext):
            for value in (*args, *kwargs.values()):
                __self.weigh(value)
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps str.format
        subject = getattr(method, "__self__", None)
        if isinstance(subject, str | bytes):
            __self._check(method.__name__, subject, args, kwargs)
            if method.__name__ == "join" and args:
                args = (list(args[0]),)
                __self._require_joined(subject, args[0])
        return __self._made(super().call(__context, __obj, *args, **kwargs))

    # ---- limits ----

    def _limited_filter(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        given_first = 1 if hasattr(run, "jinja_pass_arg") else 0  # Jinja's own argument, before the value

        @wraps(run)
        def limited(*args: Any, **kwargs: Any) -> Any:
            self.count_step()
            own, (subject, *others) = args[:given_first], args[given_first:]
            self._check(name, subject, others, kwargs)
            if name == "join":
                subject = list(subject)
                self._require_joined(others[0] if others else kwargs.get("d", ""), subject)
            if name not in _ITEMWISE:
                for value in (subject, *others, *kwargs.values()):
                    self.weigh(value)
            return self._made(run(*own, subject, *others, **kwargs))

        return limited

    def _check(self, name: str, subject: Any, args: Iterable[Any], kwargs: dict[str, Any]) -> None:
        """Refuse a method or a filter whose result would be too large, or would take too long."""
        given = [*args, *kwargs.values()]
        if name in _FILLED:
            widths = [len(value) if isinstance(value, str) else value for value in given]
            widest = max((width for width in widths if isinstance(width, int)), default=0)
            self._require(widest, _WIDEST)
            if name == "indent" and isinstance(subject, str):
                self._require((subject.count("\n") + 1) * widest)
        elif name == "replace" and len(given) > 1 and all(isinstance(v, str | bytes) for v in (subject, *given[:2])):
            self._require(len(subject) + subject.count(given[0]) * len(given[1]))
        elif name == "translate" and given and isinstance(given[0], dict):
            self._require(len(subject) * max((len(v) for v in given[0].values() if isinstance(v, str)), default=1))
        elif name in ("format", "format_map") and isinstance(subject, str):
            _require_narrow(subject)
        elif name == "sum" and not isinstance(kwargs.get("start", given[1] if len(given) > 1 else 0), int | float):
            raise TemplateLimit("it sums lists or texts, which copies more than their length for each")
        if name in _SLOW:
            self._require(len(subject) if _sized(subject) else 0, _LONGEST_SLOW)

    def _require_joined(self, separator: Any, parts: list[Any]) -> None:
        length = len(separator) * len(parts) if _sized(separator) else 0
        self._require(length + sum(len(part) for part in parts if _sized(part)))

    def _require_product(self, left: Any, right: Any) -> None:
        for one, other in ((left, right), (right, left)):
            if _sized(one) and isinstance(other, int):
                self._require(len(one) * other)
        if isinstance(left, int) and isinstance(right, int):
            _require_bits(left.bit_length() + right.bit_length())

    def _require(self, length: int, most: int = _LONGEST) -> None:
        if length > most:
            raise TemplateLimit(f"it makes a text or a list of more than {most:,} items")

    def _made(self, value: Any) -> Any:
        """Count the bytes and the parts of a value."""
        self.weigh(value)
        if isinstance(value, str | bytes | list | tuple | dict):
            self._bytes += sys.getsizeof(value)
            if self._bytes > _MOST_BYTES:
                raise TemplateLimit(f"its texts and lists take more than {_MOST_BYTES >> 20} MiB")
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """See Jinja. What is too long or nested too deeply for its compiler is refused."""
        if len(source) > _LONGEST_SOURCE:
            raise TemplateLimit(f"its source is longer than {_LONGEST_SOURCE:,} characters")
        try:
            tree = super()._parse(source, name, filename)
        except RecursionError:
            raise TemplateLimit("it is nested too deeply") from None
        level: list[nodes.Node] = [tree]
        for _ in range(_DEEPEST):
            level = [child for node in level for child in node.iter_child_nodes()]
            if not level:
                return _Counting().visit(tree)  # type: ignore[no-any-return]
        raise TemplateLimit("it is nested too deeply")


def _held(value: Any) -> Collection[Any] | None:
    """The values that a value holds, and writes where it is written; None for one that holds none."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, Namespace):
        attributes: dict[str, Any] = value._Namespace__attrs
        return attributes.values()
    return value if isinstance(value, list | tuple | set | frozenset | MappingView) else None  # type: ignore[return-value]


def _sized(value: Any) -> bool:
    return isinstance(value, str | bytes | list | tuple)


def _require_bits(bits: int) -> None:
    if bits > _MOST_BITS:
        raise TemplateLimit("it computes a number of more than 30,000 digits")


def _require_narrow(format_text: str) -> None:
    if _WIDE_FORMAT.search(format_text):
        raise TemplateLimit(f"it fills a text up to more than {_WIDEST:,} characters")
