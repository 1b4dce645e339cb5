"""Engage patterns: JavaScript regular expressions without flags, read here and run by the `regex` package.

Wirings were written for NanoClaw 2, so a pattern means what it meant there. `translate` parses it by the grammar
of ECMAScript with its web leniency (Annex B) and writes it again for `regex`, where the two differ:

    $                 the very end, not before a last line break
    .  \\w \\d \\s \\b     JavaScript's sets: ASCII words and digits, Unicode white space, four line ends
    (?<name>…)        a named group; `\\k<name>` refers to it only where some group has a name
    \\1                nothing when its group took no part, instead of a failure
    {  ]  \\a  \\p{L}    plain characters where they mean nothing else
    [[:alpha:]  []  [^]   a class that ends at the first `]`; nothing; anything
    a*+  (?i)  (?>…)  errors, since JavaScript has no such thing

JavaScript sees a character outside the basic plane as two; `units` splits pattern and text that way.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import regex

from nanotasks.domain.text import WHITESPACE
from nanotasks.errors import InvalidError

_DIGITS = {ord(char) for char in "0123456789"}
_WORD = _DIGITS | {ord(char) for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"}
_SETS = {"d": _DIGITS, "w": _WORD, "s": {ord(char) for char in WHITESPACE}}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_ASSERTIONS = {"^": r"\A", "$": r"\Z"}
_ANY_BUT_LINE_ENDS = r"[^\n\r\u2028\u2029]"
_GROUP_OPENERS = ("(?:", "(?=", "(?!", "(?<=", "(?<!")
_NAME = re.compile(r"<([^\W\d][\w$]*|\$[\w$]*)>")
_BRACES = re.compile(r"\{(\d+)(?:(,)(\d*))?\}", re.ASCII)
_MAX_LENGTH = 4000
# `regex` writes fixed repeats out: a{1000000000} would take the memory of the machine.
_MAX_WRITTEN_OUT = 100_000


class PatternError(InvalidError):
    """The engage pattern cannot be understood."""

    code = "bad_pattern"

    def __init__(self, pattern: str, position: int, why: str, fix: str) -> None:
        shown = pattern if len(pattern) <= 60 else pattern[:60] + "…"
        where = f"At character {position + 1}: {why}"
        super().__init__(f"The engage pattern {shown} cannot be understood.", why=where, fix=fix)
        self.position = position


def units(text: str) -> str:
    """The text with each character outside the basic plane as its two surrogates."""
    if text.isascii() or max(text) <= "\uffff":
        return text
    raw = text.encode("utf-16-le", "surrogatepass")
    return "".join(chr(raw[at] | raw[at + 1] << 8) for at in range(0, len(raw), 2))


@functools.lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """The compiled pattern, kept for the next message. Raises `PatternError`."""
    try:
        return regex.compile(translate(pattern), regex.V0 | regex.ASCII)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise PatternError(pattern, 0, f"it is too large ({error}).", "Write a simpler pattern.") from error


def translate(pattern: str) -> str:
    """The pattern in the dialect of the `regex` package. Raises `PatternError` with the position and a way out."""
    return _Translator(pattern).run()


def _char(code: int) -> str:
    return f"\\u{code:04x}"


@functools.cache
def _members(letter: str) -> str:
    """The inside of a class for `d`, `w`, `s`, or for what they leave out: `D`, `W`, `S`."""
    inside = _SETS[letter.lower()]
    wanted = [code for code in range(0x10000) if (code in inside) == letter.islower()]
    starts = [code for at, code in enumerate(wanted) if at == 0 or wanted[at - 1] != code - 1]
    ends = [code for at, code in enumerate(wanted) if at == len(wanted) - 1 or wanted[at + 1] != code + 1]
    return "".join(f"{_char(first)}-{_char(last)}" for first, last in zip(starts, ends, strict=True))


@dataclass
class _Group:
    """A group that is being read: where it starts in the source and in the output, and how long it has become."""

    position: int
    begin: int
    opener: str
    number: int
    size: int = 0


class _Translator:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.source = units(pattern)
        self.at = 0
        self.out: list[str] = []
        self.open = [_Group(0, 0, "", 0)]
        self.closed: set[int] = set()
        self.groups = 0
        if len(self.source) > _MAX_LENGTH:
            raise self._error(_MAX_LENGTH, "the pattern is too long.", f"Use at most {_MAX_LENGTH} characters.")
        self.total_groups, self.names = self._count_groups()

    def run(self) -> str:
        while self.at < len(self.source):
            term = self._term()
            if term is not None:
                self.out.append(self._quantified(*term))
        if len(self.open) > 1:
            raise self._error(self.open[-1].position, "this group is not closed.", "Add a `)`, or write `\\(`.")
        return "".join(self.out)

    def _error(self, position: int, why: str, fix: str) -> PatternError:
        return PatternError(self.pattern, position, why, fix)

    def _count_groups(self) -> tuple[int, dict[str, int]]:
        count, names, in_class, at = 0, dict[str, int](), False, 0
        while at < len(self.source):
            char = self.source[at]
            if char == "\\":
                at += 1
            elif char == "[":
                in_class = True
            elif char == "]":
                in_class = False
            elif char == "(" and not in_class:
                named = self.source.startswith("(?<", at) and not self.source.startswith(("(?<=", "(?<!"), at)
                if named or not self.source.startswith("(?", at):
                    count += 1
                if named:
                    name = self._group_name(at + 2)
                    if name in names:
                        raise self._error(at, f"the group name {name} is taken.", "Give each group its own name.")
                    names[name] = count
            at += 1
        return count, names

    def _group_name(self, at: int) -> str:
        found = _NAME.match(self.source, at)
        if found is None:
            raise self._error(at, "this is no group name.", "Write `<name>` with letters and digits.")
        return found[1]

    def _term(self) -> tuple[str, int] | None:
        """One term and its size, or None for what takes no quantifier and was written already."""
        char, start = self.source[self.at], self.at
        self.at += 1
        if char in "*+?" or (char == "{" and _BRACES.match(self.source, start)):
            raise self._error(start, "there is nothing to repeat.", f"Write `\\{char}` for the character itself.")
        if char in _ASSERTIONS or char == "|":
            self.out.append(_ASSERTIONS.get(char, char))
            return None
        if char == "(":
            self._open_group(start)
            return None
        if char == ")":
            return self._close_group(start)
        if char == "[":
            return self._class(start), 1
        if char == "\\":
            escape = self._escape(start)
            return None if escape is None else (escape, 1)
        return _ANY_BUT_LINE_ENDS if char == "." else _char(ord(char)), 1

    def _open_group(self, start: int) -> None:
        for opener in _GROUP_OPENERS:
            if self.source.startswith(opener, start):
                self.at = start + len(opener)
                self.open.append(_Group(start, len(self.out), opener, 0))
                self.out.append(opener)
                return
        if self.source.startswith("(?<", start):
            self.at = start + len(self._group_name(start + 2)) + 4
        elif self.source.startswith("(?", start):
            raise self._error(start, "this kind of group is unknown here.", "Use `(…)`, `(?:…)` or `(?<name>…)`.")
        self.groups += 1
        self.open.append(_Group(start, len(self.out), "(", self.groups))
        self.out.append("(")

    def _close_group(self, start: int) -> tuple[str, int] | None:
        if len(self.open) == 1:
            raise self._error(start, "this `)` closes no group.", "Remove it, or write `\\)`.")
        group = self.open.pop()
        self.closed.add(group.number)
        body = "".join(self.out[group.begin :]) + ")"
        del self.out[group.begin :]
        if group.opener in ("(?<=", "(?<!"):
            self.open[-1].size += group.size
            self.out.append(body)
            return None
        return f"(?:{body})" if group.opener in ("(?=", "(?!") else body, group.size

    def _quantified(self, term: str, size: int) -> str:
        start, braces, lowest = self.at, _BRACES.match(self.source, self.at), 1
        if self.source.startswith(("*", "+", "?"), start):
            self.at += 1
        elif braces:
            lowest, highest = int(braces[1][:9]), int(braces[3][:9]) if braces[3] else None
            if highest is not None and highest < lowest:
                raise self._error(start, "the numbers are out of order.", "Write the smaller one first.")
            self.at = braces.end()
        self.open[-1].size += size * max(lowest, 1)
        if self.open[-1].size > _MAX_WRITTEN_OUT:
            raise self._error(start, "this repeats too often.", "Use smaller numbers, or `*` and `+`.")
        if self.at == start:
            return term
        if self.source.startswith("?", self.at):
            self.at += 1
        return f"(?:{term}){self.source[start : self.at]}"

    def _escape(self, start: int) -> str | None:
        letter = self._escaped(start)
        if letter in "bB":
            self.out.append(f"\\{letter}")
            return None
        if letter in "dDwWsS":
            return f"[{_members(letter)}]"
        if letter == "k" and self.names:
            name = self._group_name(self.at)
            if name not in self.names:
                raise self._error(start, f"no group is called {name}.", f"Name a group `(?<{name}>…)`.")
            self.at += len(name) + 2
            return self._reference(self.names[name])
        if letter in "123456789":
            digits = re.compile("[0-9]+").match(self.source, self.at - 1)
            assert digits is not None
            if int(digits[0][:9]) <= self.total_groups:
                self.at = digits.end()
                return self._reference(int(digits[0]))
        return _char(self._escaped_code(letter, in_class=False))

    def _reference(self, number: int) -> str:
        # A group that is still open, or comes later, has matched nothing yet.
        return f"(?({number})\\g<{number}>)" if number in self.closed else "(?:)"

    def _escaped(self, start: int) -> str:
        if self.at >= len(self.source):
            raise self._error(start, "the pattern ends in the middle of an escape.", "Write `\\\\` for a backslash.")
        self.at += 1
        return self.source[self.at - 1]

    def _escaped_code(self, letter: str, *, in_class: bool) -> int:
        """The character that an escape stands for, once it is nothing more than a character."""
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if letter in "01234567":
            octal = re.compile("[0-3][0-7]{0,2}|[4-7][0-7]?").match(self.source, self.at - 1)
            assert octal is not None
            self.at = octal.end()
            return int(octal[0], 8)
        if letter in "xu":
            width = 2 if letter == "x" else 4
            digits = self.source[self.at : self.at + width]
            if len(digits) == width and all(char in "0123456789abcdefABCDEF" for char in digits):
                self.at += width
                return int(digits, 16)
        if letter == "c":
            after = self.source[self.at : self.at + 1]
            if after.isascii() and (after.isalpha() or (in_class and (after.isdigit() or after == "_"))):
                self.at += 1
                return ord(after) % 32
            self.at -= 1
            return ord("\\")
        return ord(letter)

    def _class(self, start: int) -> str:
        negated = self.source.startswith("^", self.at)
        self.at += negated
        members: list[str] = []
        while not self.source.startswith("]", self.at):
            first_at = self.at
            first = self._class_atom(start)
            if self.source.startswith("-", self.at) and not self.source.startswith("-]", self.at):
                self.at += 1
                last = self._class_atom(start)
                if isinstance(first, str) or isinstance(last, str):
                    members += (item if isinstance(item, str) else _char(item) for item in (first, ord("-"), last))
                    continue
                if last < first:
                    raise self._error(first_at, "the range is out of order.", "Write the smaller character first.")
                members.append(f"{_char(first)}-{_char(last)}")
            else:
                members.append(first if isinstance(first, str) else _char(first))
        self.at += 1
        if not members:
            return r"[\u0000-\uffff]" if negated else "(?!)"
        return f"[{'^' if negated else ''}{''.join(members)}]"

    def _class_atom(self, start: int) -> int | str:
        if self.at >= len(self.source):
            raise self._error(start, "this class is not closed.", "Add a `]`, or write `\\[`.")
        char = self.source[self.at]
        self.at += 1
        if char != "\\":
            return ord(char)
        letter = self._escaped(self.at - 1)
        if letter in "dDwWsS":
            return _members(letter)
        if letter == "k" and self.names:
            raise self._error(self.at - 2, "`\\k` has no place in a class.", "Write `k`.")
        return 8 if letter == "b" else self._escaped_code(letter, in_class=True)
