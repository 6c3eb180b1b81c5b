#!/usr/bin/python3
"""Answers of the real template engine, for test_chat_vectors.c to repeat.

Run it in this folder with python3 and python3-jinja2 (3.1); it rewrites conversations.json and
snippets.json.  The environment is the one chat templates are rendered with in the usual Python stack:
sandboxed and immutable, trim_blocks, lstrip_blocks, loop controls, a generation block, and tojson
without HTML escapes.  The clock stands still.

A case is [template, variables, text], or [template, variables, null, message] where rendering fails;
the message is given only for raise_exception(), whose words reach the client.
"""

import copy
import datetime
import glob
import json
import os
import re

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

import snippets

NOW = datetime.datetime(2024, 7, 26, 9, 5, 0)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_through")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _through(self, caller):
        return caller()


class Raised(Exception):
    pass


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: NOW.strftime(fmt)
    return env


ENV = environment()


def render(source, variables):
    try:
        return [ENV.from_string(source).render(**copy.deepcopy(variables))]
    except Raised as e:
        return [None, str(e.args[0])]
    except Exception:
        return [None, None]


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, call_id="abc123def", **more):
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "id": call_id, "function": function, **more}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place, \"now\" or later.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "City & country, e.g. <Zürich, CH>"},
                "days": {"type": "integer", "description": "how far ahead", "default": 1},
                "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            },
            "required": ["city"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Full text search.",
        "parameters": {
            "type": "object",
            "properties": {
                "queries": {"type": "array", "items": {"type": "string"}},
                "filters": {
                    "type": "object",
                    "properties": {"lang": {"type": ["string", "null"]}, "exact": {"type": "boolean"}},
                    "required": ["exact"],
                },
                "score": {"oneOf": [{"type": "number", "description": "raw"}, {"type": "string"}]},
            },
            "required": ["queries", "filters"],
        },
    },
}
NO_ARGS = {
    "type": "function",
    "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
}

SYSTEM = say("system", "You are terse.")
USER = say("user", "Hello, who are you?")
ANSWER = say("assistant", "A small model.")
AGAIN = say("user", "  And what\n can you do?\n\n")
UNICODE = "Grüße 🦙 — 你好，世界 \u00a0ﬁ\u2003"
CALLS = say("assistant", None, tool_calls=[call("get_weather", {"city": "Bern", "days": 2})])
RESULT = say("tool", '{"temp": 21.5}', tool_call_id="abc123def", name="get_weather")
TWO_CALLS = say(
    "assistant",
    "Let me look.",
    tool_calls=[
        call("get_weather", {"city": "Zürich \"ZH\""}),
        call("search", {"queries": ["a", "b\n"], "filters": {"exact": True}, "n": None}, "xyz789uvw"),
    ],
)
PARTS = say("user", [{"type": "text", "text": " What is "}, {"type": "image"}, {"type": "text", "text": "this? "}])


def conversations():
    plain = {
        "user": [USER],
        "system": [SYSTEM, USER],
        "turns": [USER, ANSWER, AGAIN],
        "system_turns": [SYSTEM, USER, ANSWER, AGAIN],
        "ends_with_answer": [USER, ANSWER],
        "long": [SYSTEM] + [USER, ANSWER] * 6 + [AGAIN],
        "unicode": [say("system", UNICODE), say("user", UNICODE), say("assistant", UNICODE), say("user", UNICODE)],
        "spaces": [say("system", " \n\t "), say("user", "\n\n x \t"), say("assistant", "  "), say("user", "")],
        "markup": [say("user", "<b>&amp;'\"</b> {{ x }} {% if %} \\n \\"), say("assistant", "```\n{}\n```"), USER],
        "two_users": [USER, USER],
        "assistant_first": [ANSWER, USER],
        "system_late": [USER, SYSTEM, ANSWER],
        "two_systems": [SYSTEM, SYSTEM, USER],
        "system_only": [SYSTEM],
        "empty": [],
        "strange_role": [USER, say("narrator", "Meanwhile"), USER],
        "null_content": [USER, say("assistant", None), USER],
        "no_content": [USER, {"role": "assistant"}, USER],
        "number_content": [say("user", 5)],
        "thinking": [USER, say("assistant", "<think>\nhm\n</think>\n\nYes."), AGAIN],
        "thinking_last": [USER, say("assistant", "<think>\nhm\n</think>\n\nYes.")],
        "reasoning": [USER, say("assistant", "Yes.", reasoning_content="\nhm\n", reasoning="hm"), AGAIN],
        "parts": [SYSTEM, PARTS],
        "parts_system": [say("system", [{"type": "text", "text": "See."}]), PARTS, say("assistant", [{"type": "text", "text": "A cat."}])],
        "parts_bad": [say("user", [{"type": "video"}])],
    }
    tools = {
        "tool_call": [USER, CALLS, RESULT],
        "tool_call_system": [SYSTEM, USER, CALLS, RESULT, ANSWER, AGAIN],
        "tool_calls_two": [USER, TWO_CALLS, RESULT, say("tool", "ok <&>", tool_call_id="xyz789uvw"), ANSWER],
        "tool_offer": [SYSTEM, USER],
        "tool_short_id": [USER, say("assistant", None, tool_calls=[call("now", {}, "short")]), say("tool", "9:05", tool_call_id="short")],
        "tool_without_call": [USER, RESULT],
        "tool_content_map": [USER, CALLS, say("tool", {"temp": [1, 2.5, None]}, tool_call_id="abc123def")],
        "tool_text_arguments": [USER, say("assistant", "", tool_calls=[call("now", "{}")]), RESULT],
    }
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    out = {}
    for name, messages in plain.items():
        out[name] = {"messages": messages, **tokens}
        out[name + "+prompt"] = {"messages": messages, "add_generation_prompt": True, **tokens}
    for name, messages in tools.items():
        out[name] = {"messages": messages, "tools": [WEATHER, SEARCH, NO_ARGS], "add_generation_prompt": True, **tokens}
        out[name + "+untold"] = {"messages": messages, **tokens}
    more = {"messages": [SYSTEM, USER], "add_generation_prompt": True, **tokens}
    out["no_thinking"] = {**more, "enable_thinking": False}
    out["thinking_on"] = {**more, "enable_thinking": True}
    out["effort"] = {**more, "reasoning_effort": "high", "thinking": True}
    out["builtin_tools"] = {**more, "builtin_tools": ["brave_search", "code_interpreter"], "tools": [WEATHER], "tools_in_user_message": False}
    out["builtin_call"] = {**more, "builtin_tools": ["search"], "messages": [USER, say("assistant", "", tool_calls=[call("search", {"query": "x", "lang": "de"})]), say("ipython", "found")]}
    out["documents"] = {**more, "messages": [USER], "documents": [{"title": "A", "text": "alpha"}, {"title": "B", "text": "beta"}], "controls": {"citations": True, "length": "short"}}
    out["dated"] = {**more, "date_string": "1 Jan 2030", "tools": None}
    out["vision_id"] = {**more, "messages": [PARTS, ANSWER, PARTS], "add_vision_id": True}
    out["old_tools"] = {**more, "tools": [{"name": "f", "description": "d", "parameter_definitions": {"a": {"type": "int", "required": True}, "b": {"type": "str"}}}]}
    return out


def write(name, head, cases):
    with open(name, "w", encoding="utf-8") as f:
        f.write('{"vars": {\n')
        f.write(",\n".join(json.dumps(k) + ": " + json.dumps(v, ensure_ascii=False) for k, v in head.items()))
        f.write('},\n"cases": [\n')
        f.write(",\n".join(json.dumps(c, ensure_ascii=False) for c in cases))
        f.write("\n]}\n")
    print(name, len(cases), "cases,", sum(c[2] is None for c in cases), "fail")


def main():
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    variables = conversations()
    cases = []
    for path in sorted(glob.glob("templates/*.jinja")):
        name = os.path.basename(path)
        with open(path, encoding="utf-8", newline="") as f:
            source = f.read()
        cases += [[name, v] + render(source, variables[v]) for v in variables]
    write("conversations.json", variables, cases)
    cases = [[s, "vars"] + render(s, snippets.VARS) for s in snippets.SNIPPETS]
    cases = [c for c in cases if not re.search("0x[0-9a-f]{9}", c[2] or "")]  # prints an address
    write("snippets.json", {"vars": snippets.VARS}, cases)


if __name__ == "__main__":
    main()
