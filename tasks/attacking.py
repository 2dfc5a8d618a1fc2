"""Tasks that attack an edit and judge what comes back; a stopped attack goes on from its last state.

attacks/<digest>/ has state.npz, and result-<judge>.json when it was judged. The digest is of the attack with its budget
and seed, the edit, the way of drawing and the prompts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.edits import read_edit_at
from storage.images import ImageStore
from storage.names import canonical_json, digest
from storage.places import Place
from storage.roots import Root
from tasks.concepts.concept import Expectation
from tasks.concepts.prompts import Prompt
from tasks.drawing import Draw, Prompts, png

FORMAT = "conceptprune-attack"
BUDGETS = {"inversion": 150, "tokens": 25, "revival": 100}  # steps, unless told otherwise
QUESTIONS = 12  # noisy images that a token search looks at
TOKENS = 3  # of its prefix
VECTORS, RATE = 1, 0.02  # of an inversion
RANK = 16  # of a revival's completion


@dataclass(frozen=True)
class Attack:
    """An attack on an edit: what it learns from, and what it is judged by."""

    kind: str  # one of BUDGETS
    budget: int  # steps
    seed: int
    before: Draw
    after: Draw
    learn: Prompts  # of the concept: the unedited model's images of them are what it learns from
    ask: Prompts  # of the concept, others: what it is judged by
    word: str  # the concept's in these prompts
    judge: Path  # folder of an image classifier

    def __post_init__(self) -> None:
        if self.kind not in BUDGETS:
            raise ValueError(f"attack {self.kind!r} is unknown; choose of {', '.join(BUDGETS)}")

    def about(self) -> dict[str, Any]:
        """All that decides its result, but for the judge."""
        said = [[one.prompt.text, one.prompt.seed] for part in (self.learn, self.ask) for one in part.expectations()]
        return {"attack": self.kind, "budget": self.budget, "seed": self.seed, "word": self.word,
                "prompts": digest(said, 64), "draw": dict(self.after.about)}  # fmt: skip

    @property
    def place(self) -> Place:
        """Its folder."""
        return Root(self.after.root).path("attacks", digest(self.about()))


@task(name="attack-steps", task_run_name="attack-{attack.kind}", cache_policy=NO_CACHE)
def attack_steps(attack: Attack, steps: int) -> int:
    """Go on with an attack for some steps of its budget. Returns how many are done.

    Raises ValueError for a model that the attack does not know.
    """
    state = _state(attack)
    if state is not None and state.step >= attack.budget:
        return attack.budget
    state = _ATTACKS[attack.kind](attack, state, min(steps, attack.budget - (state.step if state else 0)))
    arrays, values = state.pack()
    buffer = io.BytesIO()
    np.savez(buffer, values=np.array(json.dumps(values)), **arrays)
    (attack.place / "state.npz").put(buffer.getvalue())
    return int(state.step)


@task(name="judge-attack", task_run_name="judge-{attack.kind}", cache_policy=NO_CACHE)
def judge_attack(attack: Attack, batch: int) -> dict[str, Any]:
    """What a judge sees with the attack and without it, on prompts that it did not learn from.

    Returns {"url", "attack", "budget", "seed", "numbers": {"before", "after", "change"}, "unedited", "judge", ...}: the
    edited model's share of the concept before and after the attack. The images are kept.
    """
    from tasks.metrics import classifier
    from tasks.metrics.intervals import summarise
    from tasks.metrics.metric import Shot

    judge, asked = classifier.load(attack.judge), attack.ask.expectations()
    place = attack.place / f"result-{judge.sha256[:16]}.json"
    if (data := place.get()) is None:
        store = ImageStore.of(attack.after.root, {**attack.after.about, "attack": digest(attack.about())})
        images = _attacked(attack, asked, store, batch)

        def judged(pictures: Sequence[Image.Image]) -> Any:
            return judge.judge([Shot(one.prompt.text, one.labels, image)
                                for one, image in zip(asked, pictures, strict=True)])  # fmt: skip

        found = summarise(judged(attack.after.images(asked)), judged(images))
        plain = summarise(*[judged(attack.before.images(asked))] * 2)["before"]
        data = canonical_json(
            {"format": FORMAT, **attack.about(), "judge": judge.about, "numbers": found, "unedited": plain,
             "images": store.draw}
        )  # fmt: skip
        place.put_new(data)
    return {**json.loads(data), "url": str(place)}


def _state(attack: Attack) -> Any:
    """Where the attack stands; None if it was not begun."""
    data = (attack.place / "state.npz").get()
    if data is None:
        return None
    from tasks.attacks import inversion, tokens

    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files if name != "values"}
        values = json.loads(str(found["values"]))
    kinds: dict[str, Any] = {
        "inversion": inversion.InversionState, "tokens": tokens.TokenState, "revival": Revival,
    }  # fmt: skip
    return kinds[attack.kind].unpack(arrays, values)


def _edited(attack: Attack) -> tuple[Any, AbstractContextManager[Any]]:
    """The pipeline, and the edit that can be put in place."""
    from tasks.diffusion import pipelines
    from tasks.diffusion.pruned import pruned

    pipe = pipelines.load(attack.after.model)
    return pipe, pruned(pipe, read_edit_at(attack.after.edit or "").masks(), attack.after.weights)


def _invert(attack: Attack, state: Any, steps: int) -> Any:
    from tasks.attacks.inversion import InversionSpec, invert

    learn = [one for one in attack.learn.expectations() if attack.word in one.prompt.text]
    templates = [one.prompt.text.replace(attack.word, "{}") for one in learn]
    spec = InversionSpec(attack.budget, attack.seed, VECTORS, learning_rate=RATE)
    pipe, edit = _edited(attack)
    with edit:
        return invert(pipe, attack.before.images(learn), templates, spec, state, steps=steps)


def _search(attack: Attack, state: Any, steps: int) -> Any:
    from tasks.attacks.denoising import image_draws, latents_of
    from tasks.attacks.tokens import TokenSpec, search_tokens

    pipe, edit = _edited(attack)
    latents = latents_of(pipe, attack.before.images(attack.learn.expectations()))
    draws = image_draws(pipe, latents, QUESTIONS, attack.seed)
    with edit:
        spec = TokenSpec(attack.budget, attack.seed, TOKENS)
        return search_tokens(pipe, draws, attack.word, spec, state, steps=steps)


@dataclass(frozen=True)
class Revival:
    """The completed entries of every site: one step is a site's whole completion."""

    step: int  # of the budget that each site has
    values: dict[str, np.ndarray[Any, Any]]

    def pack(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state as named arrays and JSON values."""
        return dict(self.values), {"step": self.step}

    @classmethod
    def unpack(cls, arrays: dict[str, Any], values: dict[str, Any]) -> Revival:
        """The state that `pack` took apart."""
        return cls(int(values["step"]), dict(arrays))


def _revive(attack: Attack, state: Any, steps: int) -> Revival:
    from tasks.attacks.revival import CompletionSpec, complete, zeros_of

    spec = CompletionSpec(rank=RANK, budget=attack.budget, seed=attack.seed)
    weights = _edited_weights(attack)
    return Revival(attack.budget, {name: complete(w, zeros_of(w), spec).missing for name, w in weights.items()})


def _edited_weights(attack: Attack) -> dict[str, Any]:
    """The weights of the pruned sites as the edit leaves them, float32: all that an attacker sees."""
    from tasks.diffusion.sites import linear

    pipe, edit = _edited(attack)
    with edit:
        names = read_edit_at(attack.after.edit or "").masks()
        return {name: linear(pipe, name).weight.detach().float().cpu().numpy().copy() for name in names}


_ATTACKS: dict[str, Callable[[Attack, Any, int], Any]] = {
    "inversion": _invert, "tokens": _search, "revival": _revive,
}  # fmt: skip


def _attacked(attack: Attack, asked: Sequence[Expectation], store: ImageStore, batch: int) -> list[Image.Image]:
    """The images of the prompts under the attack, drawn where they are missing."""
    from tasks.attacks.inversion import PLACEHOLDER, with_placeholder
    from tasks.attacks.revival import restored, zeros_of
    from tasks.diffusion import pipelines
    from tasks.diffusion.pruned import replaced

    state, texts = _state(attack), [one.prompt.text for one in asked]
    if state is None:
        raise RuntimeError(f"the {attack.kind} attack was not run")
    pipe, edit = _edited(attack)
    way: AbstractContextManager[Any] = nullcontext()
    if attack.kind == "inversion":
        way = with_placeholder(pipe, state.vectors)
        texts = [text.replace(attack.word, PLACEHOLDER) for text in texts]
    elif attack.kind == "tokens":
        texts = [text.replace(attack.word, state.prompt) for text in texts]
    else:
        weights = {name: restored(weight, zeros_of(weight), state.values[name])
                   for name, weight in _edited_weights(attack).items()}  # fmt: skip
        edit = replaced(pipe, weights)
    names = [one.prompt.name for one in asked]
    todo = [i for i, name in enumerate(names) if name in set(store.missing(names))]
    with edit, way:
        for start in range(0, len(todo), batch):
            some = todo[start : start + batch]
            prompts = [Prompt(texts[i], asked[i].prompt.seed) for i in some]
            for i, image in zip(some, pipelines.generate(pipe, prompts, attack.after.capture), strict=True):
                store.put(names[i], png(image))
    return [Image.open(io.BytesIO(store.get(name))).convert("RGB") for name in names]
