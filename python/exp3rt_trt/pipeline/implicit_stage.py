"""A first stage fitted by the library `implicit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exp3rt_trt.checks import check_whole
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.extras import require
from exp3rt_trt.pipeline.first_stage import Candidate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from exp3rt_trt.inputs import Id

# What implicit gives to items that it has filtered out: the lowest number that a float can be.
FILTERED = float(np.finfo(np.float32).min)


class ImplicitFirstStage:
    """A collaborative filter of the library `implicit`, fitted on who interacted with what.

    Items that a user has interacted with are not proposed to that user.

    Args:
        interactions: pairs of user id and item id; any iterable.
        algorithm: "als" (Hu, Koren and Volinsky, 2008) or "bpr" (Rendle et al., 2009).
        eligible: the items that may be proposed, those in stock or those with texts; None for all.
        seed: of the factors.
        **options: of implicit's model: factors, regularization, iterations, ...

    Raises:
        InvalidInputError: naming the interaction that is no pair; if there are none, or no such algorithm,
            or no factors.
        Exp3rtError: if `implicit` is not installed.

    Example:
        >>> stage = ImplicitFirstStage([("ann", "tuesday"), ("bob", "cellar")])  # doctest: +SKIP
        >>> stage.candidates("ann", 1)  # doctest: +SKIP
    """

    def __init__(
        self,
        interactions: Iterable[tuple[Id, Id]],
        algorithm: Literal["als", "bpr"] = "als",
        *,
        eligible: Collection[Id] | None = None,
        seed: int = 0,
        **options: Any,  # noqa: ANN401  (whatever implicit's model takes)
    ) -> None:
        pairs = list(dict.fromkeys(_pair(place, given) for place, given in enumerate(interactions)))
        if not pairs:
            raise InvalidInputError("interactions is empty")
        self._users = {user: n for n, user in enumerate(dict.fromkeys(user for user, _ in pairs))}
        self._numbers = {item: n for n, item in enumerate(dict.fromkeys(item for _, item in pairs))}
        self._items = list(self._numbers)
        self._barred = [
            n for item, n in self._numbers.items() if eligible is not None and item not in eligible
        ]
        cells = ([self._users[user] for user, _ in pairs], [self._numbers[item] for _, item in pairs])
        shape = (len(self._users), len(self._items))
        self._matrix = require("scipy.sparse", "pipeline").csr_matrix(
            (np.ones(len(pairs), dtype=np.float32), cells), shape=shape
        )
        self._model = _fitted(algorithm, seed, options, self._matrix)

    def candidates(self, user_id: Id, n: int) -> list[Candidate]:
        """Return at most n candidates, best first; none for a user that has no interactions."""
        user = self._users.get(user_id)
        if user is None:
            return []
        ids, scores = self._model.recommend(
            user, self._matrix[user], N=min(n, len(self._items)), filter_items=self._barred or None
        )
        found = zip(ids.tolist(), scores.tolist(), strict=True)
        return [Candidate(self._items[i], score) for i, score in found if i >= 0 and score > FILTERED]

    def scores(self, user_id: Id, item_ids: Sequence[Id]) -> NDArray[np.float64]:
        """Return the scores of any items, [num_items]; NaN for a user or an item without interactions."""
        scores = np.full(len(item_ids), np.nan)
        if user_id in self._users:
            places = [place for place, item in enumerate(item_ids) if item in self._numbers]
            factors = self._model.item_factors[[self._numbers[item_ids[place]] for place in places]]
            scores[places] = factors @ self._model.user_factors[self._users[user_id]]
        return scores

    def seen(self, user_id: Id) -> set[Id]:
        """Return the items that a user has interacted with."""
        user = self._users.get(user_id)
        return set() if user is None else {self._items[n] for n in self._matrix[user].indices}


def _pair(place: int, given: Any) -> tuple[Id, Id]:  # noqa: ANN401  (checked here)
    try:
        pair = () if isinstance(given, str) else tuple(given)
        hash(pair)
    except TypeError:
        pair = ()
    if len(pair) != 2:
        raise InvalidInputError(f"interactions[{place}] must be a user's id and an item's, not {given!r}")
    return pair


def _fitted(
    algorithm: str,
    seed: int,
    options: dict[str, Any],
    matrix: Any,  # noqa: ANN401  (untyped library)
) -> Any:  # noqa: ANN401
    models = {
        "als": require("implicit.cpu.als", "pipeline").AlternatingLeastSquares,
        "bpr": require("implicit.cpu.bpr", "pipeline").BayesianPersonalizedRanking,
    }
    if algorithm not in models:
        raise InvalidInputError(f'algorithm must be "als" or "bpr", not {algorithm!r}')
    check_whole("factors", options.get("factors", 1), 1)
    with require("threadpoolctl", "pipeline").threadpool_limits(1, "blas"):  # implicit asks for it
        model = models[algorithm](random_state=seed, **options)
        model.fit(matrix, show_progress=False)
    return model
