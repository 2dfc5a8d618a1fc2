"""Genetic search over prompts by what comes of them: a black box, no gradients, no weights.

Selection by tournaments, crossover, mutation and elitism over words of a list, as in Ring-A-Bell's search for prompts
(Tsai et al., ICLR 2024), with a fitness of the caller's: for instance how sure a judge is of the concept in what the
edited model draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.attacks.resuming import check_at_least, generator, spec_digest, steps_to_run

TRIES = 10  # to breed a child that was not tried yet
Fitness = Callable[[Sequence[str]], Sequence[float]]  # a number for each prompt, the more the better


@dataclass(frozen=True)
class GeneticSpec:
    """How prompts are bred. Raises ValueError for a field that makes no sense."""

    budget: int  # generations in all, after the first
    seed: int = 0
    words: int = 4  # of a prompt
    population: int = 12  # prompts
    elite: int = 2  # prompts that live on as they are
    tournament: int = 3  # prompts that a parent is the best of
    mutation: float = 0.25  # share of a child's words that are drawn anew

    def __post_init__(self) -> None:
        check_at_least("budget", self.budget, 0)
        for name in ("words", "elite", "tournament"):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("population", self.population, self.elite + 1)
        if not 0 <= self.mutation <= 1:
            raise ValueError(f"mutation is {self.mutation}; it must be from 0 to 1")


@dataclass(frozen=True)
class GeneticState:
    """Where a search stands."""

    spec: str  # digest of the spec that it was begun with
    step: int  # generations done, after the first
    population: tuple[str, ...]  # the prompts, best first
    scores: Mapping[str, float]  # fitness of every prompt that was ever tried: none is tried twice
    best: tuple[float, ...]  # the best fitness of each generation: never falling, thanks to the elite

    @property
    def prompt(self) -> str:
        """The best prompt so far."""
        return self.population[0]

    def pack(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The state as named arrays (none) and JSON values."""
        values = {"spec": self.spec, "step": self.step, "population": list(self.population)}
        return {}, {**values, "scores": dict(self.scores), "best": list(self.best)}

    @classmethod
    def unpack(cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> GeneticState:
        """The state that `pack` took apart."""
        scores = {str(prompt): float(score) for prompt, score in values["scores"].items()}
        population, best = tuple(map(str, values["population"])), tuple(map(float, values["best"]))
        return cls(str(values["spec"]), int(values["step"]), population, scores, best)


def search_prompts(
    fitness: Fitness,
    words: Sequence[str],
    spec: GeneticSpec,
    state: GeneticState | None = None,
    *,
    steps: int | None = None,
    progress: Callable[[GeneticState], None] | None = None,
) -> GeneticState:
    """Breed prompts of `words` for a high fitness; `fitness` gets new prompts only, each generation's in one call.

    `steps` generations of the budget are bred, None = all that are left; `progress` gets the state after each. Raises
    ValueError for fewer than two words or one with spaces, for a fitness that gives another number of scores or no
    finite one, and for a state of another spec.
    """
    words = list(dict.fromkeys(words))
    if len(words) < 2 or any(len(word.split()) != 1 for word in words):
        raise ValueError("give at least two different words, none of them empty or with spaces")
    if state is None:
        random = generator(spec.seed)
        first = [" ".join(random.choice(words, spec.words)) for _ in range(spec.population)]
        state = _judged(GeneticState(spec_digest(spec), 0, (), {}, ()), first, fitness)
    for _ in range(steps_to_run(state.step, spec, steps, state.spec)):
        children = _children(state, words, spec)
        state = _judged(replace(state, step=state.step + 1), children, fitness)
        if progress:
            progress(state)
    return state


def _judged(state: GeneticState, prompts: Sequence[str], fitness: Fitness) -> GeneticState:
    """The state with these prompts as its population, best first; ties stay in order."""
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in state.scores]
    found = [float(score) for score in fitness(new)] if new else []
    if len(found) != len(new) or not np.isfinite(found).all():
        raise ValueError(f"fitness gave {len(found)} scores for {len(new)} prompts; one finite number each is needed")
    scores = {**state.scores, **dict(zip(new, found, strict=True))}
    population = tuple(sorted(prompts, key=lambda prompt: -scores[prompt]))
    return replace(state, population=population, scores=scores, best=(*state.best, scores[population[0]]))


def _children(state: GeneticState, words: Sequence[str], spec: GeneticSpec) -> list[str]:
    """The next generation: the elite, and children of winners of tournaments, new ones where that is possible."""
    random = generator(spec.seed, state.step + 1)
    children = list(dict.fromkeys(state.population))[: spec.elite]
    while len(children) < spec.population:
        for _ in range(TRIES):
            child = _child(state.population, words, spec, random)
            if child not in state.scores and child not in children:
                break
        children.append(child)
    return children


def _child(population: Sequence[str], words: Sequence[str], spec: GeneticSpec, random: np.random.Generator) -> str:
    """A child of two prompts: the first words of one, the last of the other, some of them drawn anew."""
    # The population is in order, so the lowest index of a draw is the tournament's winner.
    mother, father = (
        population[int(random.integers(0, len(population), spec.tournament).min())].split() for _ in range(2)
    )
    cut = int(random.integers(0, spec.words + 1))
    child = [*mother[:cut], *father[cut:]]
    anew = random.random(spec.words) < spec.mutation
    return " ".join(str(random.choice(words)) if new else word for word, new in zip(child, anew, strict=True))
