"""Text from outside is made printable before it is shown.

A norm, a key, a message of a server may hold control characters: escape sequences move the cursor
and change what is on the terminal, others change the direction of writing, are forbidden in XML, or
cannot be written as UTF-8. They are replaced where text is shown: by `terminal.Terminal` in what
rich prints, by `printable` in error sentences, logs, pages, figures, tables.
"""

import difflib
import re
from collections.abc import Iterable, Sequence

# Controls (tab and the end of a line apart), soft hyphen, marks of direction and of zero width,
# separators of lines, surrogates, what is no character, tags.
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
_REPLACEMENT = "\ufffd"
# Characters; no part of a sentence that is written here has more, two paths included.
LONGEST_PART = 400
_LONG_PART = re.compile(rf"(?:(?![,;:.]\s).){{{LONGEST_PART + 1},}}")


def printable(text: str) -> str:
    """The text with U+FFFD in place of every control or invisible character; lines stay lines."""
    return _CONTROL_CHARACTERS.sub(_REPLACEMENT, text)


def printable_line(text: str) -> str:
    """The same, for a name or a value that may not begin a new line."""
    return printable(text.replace("\n", _REPLACEMENT).replace("\t", _REPLACEMENT))


def one_line(value: object, most: int | None = None) -> str:
    """The text of a value with every stretch of white space, line breaks too, as one space.

    Of more than `most` characters only the first ones.
    """
    return " ".join(str(value).split())[:most]


def shorten_long_parts(message: str) -> str:
    """The message, of a value longer than any part of a sentence only the beginning and the end."""
    return _LONG_PART.sub(lambda part: f"{part[0][:150]}…{part[0][-150:]}", message)


def excerpt(value: object, most: int = 120) -> str:
    """The beginning of a value on one line, for a message that names what was given."""
    text = printable_line(str(value))
    return text if len(text) <= most else f"{text[:most]}…"


def join_words(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def count_noun(count: int, noun: str) -> str:
    """`1 seed`, `2 seeds`, `1,000 processes`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """The name that is nearly this one or begins with it; None where there is none."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    for candidate in sorted(by_lower, key=len):
        if name and candidate.startswith(name.lower()):
            matches.append(candidate)
    return by_lower[matches[0]] if matches else None


def suggest_closest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """`did you mean …? ` with the name that is nearly this one or begins with it, or nothing.

    `prefix` is what stands before a name where it is written, as `norm=`.
    """
    closest = closest_name(name, names)
    return f"did you mean {prefix}{closest}? " if closest else ""
