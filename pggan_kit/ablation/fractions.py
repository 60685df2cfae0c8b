"""Regular fractions of two-level factorial designs: which combinations are run, and which effects share a column.

Factors are bits, the first one the lowest; a set of factors is a *word*. The columns of a design have -1 at the first
level of a factor and 1 at its second; the column of an interaction is the product of its factors' columns. All variants
of a fraction satisfy its *defining relation*: the columns of some words are constant. Two effects whose words differ
by such a word are *aliases*: they have the same column, perhaps with the opposite sign. The *resolution* is the number
of factors in the shortest such word. Box, Hunter and Hunter, Statistics for Experimenters (2005), chapter 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Fraction:
    """A fraction of the combinations of two-level factors; that of the first levels is always in it.

    Attributes:
        factors: Number of factors.
        parents: Of each factor the basic factors whose levels decide its own, as bits; of a basic factor itself. The
            factor is at its second level where an odd number of its parents are.
    """

    factors: int
    parents: tuple[int, ...]

    @property
    def words(self) -> frozenset[int]:
        """The words of the defining relation, without the empty one."""
        words = {0}
        for index, parents in enumerate(self.parents):
            if parents != 1 << index:
                words |= {word ^ parents ^ (1 << index) for word in words}
        return frozenset(words - {0})

    @property
    def resolution(self) -> int:
        """The number of factors in the shortest word of the defining relation."""
        return min(word.bit_count() for word in self.words)

    def contains(self, code: int) -> bool:
        """Return whether a combination is in the fraction, given as the factors that are at their second level."""
        return all((code & parents).bit_count() % 2 == code >> index & 1 for index, parents in enumerate(self.parents))

    def list_generators(self) -> list[tuple[int, int, int]]:
        """Return the number of each generated factor, with the word and the sign of the column that is its own."""
        generators = []
        for index, parents in enumerate(self.parents):
            if parents != 1 << index:
                generators.append((index, parents, find_sign(parents | 1 << index)))
        return generators

    def find_aliases(self, word: int, most: int) -> list[tuple[int, int]]:
        """Return the aliases of an effect that have at most `most` factors, each with the sign of its column."""
        aliases = []
        for other in self.words:
            alias = word ^ other
            if 0 < alias.bit_count() <= most:
                aliases.append((alias, find_sign(other)))
        return sorted(aliases, key=lambda alias: (alias[0].bit_count(), list_members(alias[0])))

    def list_chains(self, most: int) -> list[list[tuple[int, int]]]:
        """Return the sets of effects of at most `most` factors that share a column, as words with their signs.

        Effects that share it with no other of them are left out.
        """
        chains = []
        seen: set[int] = set()
        for size in range(1, most + 1):
            for members in combinations(range(self.factors), size):
                word = sum(1 << index for index in members)
                aliases = self.find_aliases(word, most)
                if aliases and word not in seen:
                    chains.append([(word, 1), *aliases])
                seen |= {word, *(alias for alias, _ in aliases)}
        return chains


def list_members(word: int) -> list[int]:
    """Return the numbers of a word's factors."""
    return [index for index in range(word.bit_length()) if word >> index & 1]


def find_sign(word: int) -> int:
    """Return the constant value of a word of the defining relation, in which an even number of factors are at 1."""
    return -1 if word.bit_count() % 2 else 1


def find_fraction(factors: int, resolution: int) -> Fraction | None:
    """Return the smallest fraction with at least a resolution, and among these one with the highest resolution.

    Returns:
        The fraction; None if all combinations are needed.
    """
    for basic in range(1, factors):
        for reached in range(factors, resolution - 1, -1):
            parents = _find_parents([1 << index for index in range(basic)], factors, reached)
            if parents is not None:
                return Fraction(factors, tuple(parents))
    return None


def _find_parents(basic: Sequence[int], factors: int, resolution: int) -> list[int] | None:
    """Return the parents of all factors, or None if the resolution cannot be reached.

    Any `resolution - 1` of them must be linearly independent, counted modulo 2: each is no sum of `resolution - 2`
    others or fewer.
    """
    # Words of many factors first: generators with many give high resolutions.
    candidates = sorted(range(1, 1 << len(basic)), key=lambda word: (-word.bit_count(), word))

    def extend(parents: list[int], start: int) -> list[int] | None:
        if len(parents) == factors:
            return parents

        # A new word must be none of the sums by which a word of too few factors would arise.
        sums = {0}
        for size in range(1, resolution - 1):
            for chosen in combinations(parents, size):
                total = 0
                for word in chosen:
                    total ^= word
                sums.add(total)
        for position in range(start, len(candidates)):
            if candidates[position] not in sums:
                found = extend([*parents, candidates[position]], position + 1)
                if found is not None:
                    return found
        return None

    return extend(list(basic), 0)
