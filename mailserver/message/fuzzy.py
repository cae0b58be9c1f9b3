r"""How well a text answers a search that need not be met to the letter: FUZZY. RFC 6203.

What is searched for is taken as words, and each of them has to be there, in any order. Letter case and
accents count for nothing. A word is found, from the best to the least,

    100  as it is                                        invoice     invoice
     80  as the beginning of a word                      invoice     invoices
     60  with up to three letters less at its end        invoices    invoice
     50  with one letter wrong, missing or too many, or  invoice     invioce
         two neighbours exchanged; words of six letters and more
     40  within a word                                   invoice     reinvoiced

so that whatever an exact search finds is found too. Scores are 1 to 100: the mean of the words', less a tenth
where they do not follow each other as they were asked for, times a weight for where they stand. Text without
any letter or digit is looked for as it is; of very many words the first 32 count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mailserver.message.text import fold, without_accents

_WORD: Final = re.compile(r"\w+")
_SUBJECT: Final = re.compile(r"^subject:(.*)$", re.MULTILINE)
_TYPO: Final = 6  # letters of a word in which one may be wrong
_ENDING: Final = 3  # letters that may be too many
_STEM: Final = 4  # letters that are left then
_MOST_WORDS: Final = 32  # of a search: the rest does not count
_MOST_KNOWN: Final = 10_000  # words of messages whose likeness is remembered
_LONGEST: Final = 64  # letters of a word that is remembered, or compared by letter

Pieces = Sequence[Sequence[str]]


class _Likeness(dict[str, int]):
    """How well words of messages answer one word of the search: found out once for each."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self._wanted = wanted

    def __missing__(self, word: str) -> int:
        likeness = _likeness(self._wanted, word)
        if len(word) <= _LONGEST:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[word] = likeness
        return likeness


def _likeness(wanted: str, word: str) -> int:
    if word == wanted:
        return 100
    if word.startswith(wanted):
        return 80
    if len(wanted) - _ENDING <= len(word) >= _STEM and wanted.startswith(word):
        return 60
    if _TYPO <= len(wanted) <= _LONGEST and _is_one_edit(wanted, word):
        return 50
    return 40 if wanted in word else 0


def _is_one_edit(one: str, other: str) -> bool:
    """Whether one letter was changed, put in or left out, or two neighbours exchanged."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    left, right = one[start:], other[start:]
    if len(left) != len(right):
        return left[1:] == right or left == right[1:]
    return left[1:] == right[1:] or (left[2:] == right[2:] and left[:2] == right[1::-1])


class FuzzyText:
    """What a FUZZY key searches for. Texts are folded (`text.fold`), accents and all."""

    def __init__(self, text: str) -> None:
        self._plain = without_accents(fold(text))
        words = _WORD.findall(self._plain)[:_MOST_WORDS]
        self._words = tuple(dict.fromkeys(words))
        self._likeness = [_Likeness(word) for word in self._words]
        self._phrase = " ".join(words)

    @property
    def pieces(self) -> Pieces:
        """Of each group one piece at least stands in any text that has a score, its accents taken away."""
        return [found for word in self._words if (found := _pieces(word))]

    def of_value(self, value: str) -> int:
        """The score of a field's value: higher where it says little else. 0 where it does not answer."""
        score, _, count = self._score(value)
        return _weighed(score, 80 + 20 * len(self._words) // max(count, 1))

    def of_text(self, header: str, body: str, with_header: bool) -> int:
        """The score of a message. 0 where it does not answer.

        Its subject weighs most; then the body, more where the words come again; then the rest of the header.
        One word may be here and another there.
        """
        best, times, _ = self._score(body)
        best = _weighed(best, min(90, 60 + 10 * times) if with_header else min(100, 70 + 10 * times))
        if with_header:
            subject = "\n".join(_SUBJECT.findall(header))
            best = max(best, self.of_value(subject), _weighed(self._score(header)[0], 60))
            best = best or _weighed(self._score(f"{header}\n{body}")[0], 50)
        return best

    def _score(self, text: str) -> tuple[int, int, int]:
        """How well the words answer, how often they come again, and how many words there are."""
        plain = without_accents(text)
        if not self._words:
            return (100 if self._plain in plain else 0), 0, 1
        words = _WORD.findall(plain)
        total, times = 0, len(words)
        for likeness in self._likeness:
            found = [*filter(None, map(likeness.__getitem__, words))]
            if not found:
                return 0, 0, len(words)
            total += max(found)
            times = min(times, len(found) - 1)
        mean = total // len(self._words)
        return (mean if self._is_in_order(words) else _weighed(mean, 90)), times, len(words)

    def _is_in_order(self, words: Sequence[str]) -> bool:
        return len(self._words) == 1 or self._phrase in " ".join(words)


def _weighed(score: int, weight: int) -> int:
    return max(1, score * min(weight, 100) // 100) if score else 0


def _pieces(word: str) -> Sequence[str]:
    """What can be left of a word; none where that is too short for trigrams to help."""
    if len(word) < _TYPO:
        stem = word[: max(_STEM, len(word) - _ENDING)]
        return (stem,) if len(stem) >= 3 else ()
    half = len(word) // 2
    exchanged = word[: half - 1] + word[half] + word[half - 1] + word[half + 1 :]
    return word[:half], word[half:], exchanged
