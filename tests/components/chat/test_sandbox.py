"""Templates of models are hostile input: whatever they do ends within limits of time and size, as one sentence."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from potstill.components.chat import sandbox
from potstill.components.chat.template import compile_template

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]


def render(source: str) -> str:
    return compile_template(source).render(messages=MESSAGES, tools=None, bos_token="", eos_token="<e>")


LOOPS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) if range(99999)|list|length == 1 %}{% endfor %}",
    "{% for a in range(99999) %}{{ range(99999)|map('string')|list|length }}{% endfor %}",
    "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(40) }}",
]


@pytest.mark.parametrize("source", LOOPS)
def test_a_template_that_would_run_for_hours_ends(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_SECONDS", 0.2)
    begun = time.monotonic()
    with pytest.raises(sandbox.TemplateLimit, match="runs for more than"):
        render(source)
    assert time.monotonic() - begun < 5


SIZES = [
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    "{{ [0] * 10**10 }}",
    "{{ 10 ** (10 ** 7) }}",
    "{% set x = namespace(n=3) %}{% for i in range(60) %}{% set x.n = x.n * x.n %}{% endfor %}{{ x.n > 1 }}",
    "{{ 'x'|center(10**10) }}",
    "{{ 'x'.rjust(10**10) }}",
    "{{ 'x'.zfill(width=10**10) if false else 'x'.ljust(10**9) }}",
    "{{ 'x\t'.expandtabs(10**10) }}",
    "{{ 'aaaa'.replace('a', 'a' * 10**7) }}",
    "{{ 'aaaa'|replace('a', 'a' * 10**7) }}",
    "{{ 'aaaa'.replace('', 'a' * 10**7) }}",
    "{{ 'aaaa'.translate({97: 'a' * 10**7}) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10**9) }}",
    "{{ '{a:{b}}'.format_map({'a': 1, 'b': 10**9}) }}",
    "{{ range(99999)|join('a' * 10**6) }}",
    "{{ ('a' * 10**6).join(range(99999)|map('string')) }}",
    "{{ ('x\n' * 99999)|indent(99999) }}",
    "{{ ('x\n' * 99999)|indent('a' * 99999) }}",
    "{{ messages|batch(10**10, 0)|list }}",
    "{{ messages|slice(10**9)|list }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ messages|map('center', 10**9)|list }}",
    "{% set x = namespace(a='a') %}{% for i in range(40) %}{% set x.a = x.a ~ x.a %}{% endfor %}{{ x.a }}",
    "{% set x = namespace(a='a') %}{% for i in range(40) %}{% set x.a = x.a + x.a %}{% endfor %}{{ x.a }}",
    "{% set x = namespace(a=[1]) %}{% for i in range(40) %}{% set x.a = x.a + x.a %}{% endfor %}{{ x.a }}",
    "{% set x = 'a' * 10**6 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
    "{% set x = 'a' * 10**6 %}{% set y %}{% for i in range(99999) %}{{ x }}{% endfor %}{% endset %}",
    "{% set x = namespace(a=[]) %}{% for i in range(9999) %}{% set x.a = x.a + ['a' * 10**7] %}{% endfor %}",
    "{{ ('a@b ' * 50000)|urlize }}",
    "{{ ([[0] * 1000] * 20000)|sum(start=[])|length }}",
    "{{ ([[0] * 100] * 9000)|sum(start=[])|length }}",
    "{{ ([[0] * 100] * 9000)|sum(none, [])|length }}",
    "{{ ['a' * 10**6] * 100 }}",
    "{{ (['a' * 10**6] * 100)|string }}",
    "{{ '%s' % ([('a' * 10**6)] * 100) }}",
    "{{ [[10 ** 4000] * 90000] }}",
]


@pytest.mark.parametrize("source", SIZES)
def test_a_template_that_would_fill_the_memory_ends(source: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(sandbox.TemplateLimit, match="more than"):
            render(source)
        assert tracemalloc.get_traced_memory()[1] < 900 << 20
    finally:
        tracemalloc.stop()


DOUBLED = "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = ONE %}{% endfor %}"
GROWTHS = [
    DOUBLED.replace("ONE", one) + use
    for one, use in [
        *[("[n.x, n.x]", use) for use in (
            "{{ n.x }}", "{{ n.x|tojson }}", "{{ n.x|pprint }}", "{{ n.x|string }}", "{{ n.x|join }}", "{{ n.x ~ '' }}",
            "{{ '%s'|format(n.x) }}", "{{ '%s' % n.x }}", "{{ '{}'.format(n.x) }}", "{{ n.x|upper }}",
            "{% set y %}{{ n.x }}{% endset %}", "{{ raise_exception(n.x) }}", "{{ n.x == [n.x] }}",
        )],
        ("(n.x, n.x)", "{{ {n.x: 1} }}"),
        ("{'a': n.x, 'b': n.x}", "{{ n.x }}"),
        ("{'a': n.x, 'b': n.x}.values()", "{{ n.x }}"),
        ("dict(a=n.x, b=n.x)", "{{ n.x|tojson }}"),
        ("namespace(a=n.x, b=n.x)", "{{ n.x }}"),
        ("namespace(a=n.x, b=n.x)", "{{ [n.x] }}"),
        ("namespace(a=n.x, b=n.x)", "{{ n.x|string }}"),
        ("[n.x] * 2", "{{ n.x }}"),
        ("[n.x]|batch(2, n.x)|list", "{{ n.x }}"),
    ]
]  # fmt: skip


@pytest.mark.parametrize("source", GROWTHS)
def test_a_value_that_doubles_ends(source: str) -> None:
    begun = time.monotonic()
    with pytest.raises(sandbox.TemplateLimit, match="more than"):
        render(source)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "source",
    ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{{ " + "not " * 3000 + "1 }}",
     "{{ " + "[" * 200 + "]" * 200 + " }}",
     "{% if 1 %}" * 300 + "{% endif %}" * 300, "{{ " + "+".join(["1"] * 20000) + " }}", "x" * ((1 << 20) + 1),
     DOUBLED.replace("ONE", "[n.x]").replace("40", "999") + "{{ n.x }}",
     "{% set n = namespace() %}{% set n.n = n %}{{ n }}"],
)  # fmt: skip
def test_a_template_that_is_too_deep_or_too_long_is_refused(source: str) -> None:
    with pytest.raises(sandbox.TemplateLimit, match=r"nested too deeply|longer than"):
        render(source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ m.role[0] }} {% endfor %}", "1/2u 2/2a "),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{{ loop.last }}{% endfor %}", "hiTrue"),
        ("{% for m in messages if false %}x{% else %}none{% endfor %}", "none"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% endfor %}", "ok"),
        ("{% for a in [[1], [2, [3]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}", "123"),
        ("{% macro f(a, b=2) %}{{ a ~ b }}{{ caller() if caller }}{% endmacro %}{% call f(1) %}!{% endcall %}", "12!"),
        ("{{ 'a' ~ 1 ~ none ~ eos_token }}", "a1None<e>"),
        ("{{ '%s-%3d' % ('a', 7) }}{{ '{:>3}'.format(1) }}{{ 2 ** 10 + 1 }}{{ 7 % 4 }}", "a-  7  110253"),
        ("{{ ', '.join(['a', 'b']) }}{{ ['a', 'b']|join('|') }}{{ messages|map(attribute='role')|join }}",
         "a, ba|buserassistant"),
        ("{{ {'a': 1}|tojson(indent=2) }}{{ '\n\nx'.replace('\n', '') }}{{ 'x'|center(3) }}", '{\n  "a": 1\n}x x '),
        ("{% set n = namespace(a=[]) %}{% for m in messages %}{% set n.a = n.a + [m.role] %}{% endfor %}{{ n.a }}",
         "['user', 'assistant']"),
        ("{% for a, b in {'x': eos_token, 'y': 2}.items() %}{{ a }}{{ (a, b) }}{% endfor %}", "x('x', '<e>')y('y', 2)"),
        ("{% set a, b = 1, eos_token %}{{ a }}{{ b }}{{ [1, 2, 3]|sum }}{{ [1]|sum(start=0.5) }}{{ none }}{{ x }}",
         "1<e>61.5None"),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}", "ok"),
    ],
)  # fmt: skip
def test_an_ordinary_template_is_rendered_as_jinja_does(source: str, text: str) -> None:
    assert render(source) == text


def test_the_clock_starts_with_each_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    template: Any = compile_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    monkeypatch.setattr(sandbox, "_SECONDS", 0.3)
    for _ in range(3):
        assert template.render(messages=MESSAGES) == "hiok"
        time.sleep(0.2)
