"""Two readers of Go templates to hold potstill's against: a small one written here, and Go's own where Go is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Go", "Small"]


class Small:
    """The part of Go's text/template that potstill writes: if, else, else if, range, variables, eq, gt, len, slice."""

    def render(self, template: str, values: dict[str, Any]) -> str:
        tokens = re.split(r"\{\{ ?(.*?) ?\}\}", template)
        self._stream: Iterator[tuple[int, str]] = iter(enumerate(tokens))
        tree, end = self._parse()
        assert end == "", f"left over: {end}"
        return self._write(tree, values, {"$": values})

    def _parse(self) -> tuple[list[Any], str]:
        nodes: list[Any] = []
        for index, token in self._stream:
            if index % 2 == 0:
                nodes.append(token)
            elif token == "end" or token.startswith("else"):
                return nodes, token
            elif token.startswith(("if ", "range ")):
                nodes.append(self._branch(token))
            else:
                nodes.append((token,))
        return nodes, ""

    def _branch(self, token: str) -> tuple[str, list[Any], list[Any]]:
        body, end = self._parse()
        if end == "end":
            return token, body, []
        if end.startswith("else if "):
            return token, body, [self._branch(end.removeprefix("else "))]
        other, end = self._parse()
        assert end == "end"
        return token, body, other

    def _write(self, nodes: list[Any], dot: Any, names: dict[str, Any]) -> str:
        out = []
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
            elif len(node) == 1:
                name, assigned, expression = node[0].partition(" := ")
                if assigned:
                    names[name] = self._value(expression, dot, names)
                else:
                    out.append(str(self._value(node[0], dot, names)))
            else:
                out.append(self._control(*node, dot, names))
        return "".join(out)

    def _control(self, token: str, body: list[Any], other: list[Any], dot: Any, names: dict[str, Any]) -> str:
        word, _, expression = token.partition(" ")
        if word == "if":
            return self._write(body if self._value(expression, dot, names) else other, dot, dict(names))
        variables, _, source = expression.rpartition(" := ")
        out = []
        for index, item in enumerate(self._value(source, dot, names) or []):
            bound = dict(zip(variables.split(", "), (index, item), strict=True)) if variables else {}
            out.append(self._write(body, item, {**names, **bound}))
        return "".join(out) if out else self._write(other, dot, names)

    def _value(self, expression: str, dot: Any, names: dict[str, Any]) -> Any:
        words = re.findall(r'"(?:[^"\\]|\\.)*"|\(|\)|[^\s()]+', expression)
        value, rest = self._term(words, dot, names)
        assert not rest, f"not understood: {expression}"
        return value

    def _term(self, words: list[str], dot: Any, names: dict[str, Any]) -> tuple[Any, list[str]]:
        functions = {
            "eq": lambda a, b: a == b,
            "gt": lambda a, b: a > b,
            "len": len,
            "slice": lambda a, i: a[i:],
            "json": lambda a: json.dumps(a, separators=(",", ":"), sort_keys=True),
        }
        if words[0] in functions:
            arguments, rest = [], words[1:]
            while rest and rest[0] != ")":
                value, rest = self._atom(rest, dot, names)
                arguments.append(value)
            return functions[words[0]](*arguments), rest  # type: ignore[operator]
        return self._atom(words, dot, names)

    def _atom(self, words: list[str], dot: Any, names: dict[str, Any]) -> tuple[Any, list[str]]:
        word, rest = words[0], words[1:]
        if word == "(":
            value, rest = self._term(rest, dot, names)
            assert rest[0] == ")"
            return value, rest[1:]
        if word.startswith('"'):
            return json.loads(word), rest
        if word.isdigit():
            return int(word), rest
        name, *fields = word.split(".")
        value = names[name] if name else dot
        for field in fields:
            value = value[field]
        return value, rest


_MAIN = """package main

import (
    "encoding/json"
    "os"
    "strings"
    "text/template"
)

type Call struct { Function struct { Name string; Arguments map[string]any } }
type Message struct { Role, Content string; ToolCalls []Call }
type Tool struct { Type string; Function struct { Name string } }
type Case struct { Template, System string; Tools []Tool; Messages []*Message }

func main() {
    var cases []Case
    if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
    written := []string{}
    text := func(v any) string { b, _ := json.Marshal(v); return string(b) }
    for _, c := range cases {
        made := template.New("").Option("missingkey=zero").Funcs(template.FuncMap{"json": text})
        parsed, err := made.Parse(c.Template)
        if err != nil { panic(err) }
        var out strings.Builder
        values := map[string]any{"System": c.System, "Messages": c.Messages, "Tools": c.Tools, "Response": ""}
        if err := parsed.Execute(&out, values); err != nil { panic(err) }
        written = append(written, out.String())
    }
    json.NewEncoder(os.Stdout).Encode(written)
}
"""


class Go:
    """Go itself, with the values and functions that Ollama gives a template."""

    available = shutil.which("go") is not None

    def __init__(self, folder: Path) -> None:
        self.main = folder / "main.go"
        self.main.write_text(_MAIN)

    def render_all(self, cases: list[tuple[str, dict[str, Any]]]) -> list[str]:
        given = json.dumps([{"Template": template, **values} for template, values in cases])
        ran = subprocess.run(["go", "run", str(self.main)], input=given, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return [str(text) for text in json.loads(ran.stdout)]
