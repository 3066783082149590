"""Ray Data: a stage that ranks every user of a dataset, on many machines, and goes on where it was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from ray.data import ActorPoolStrategy
from ray.data.checkpoint import CheckpointConfig

from exp3rt_trt.integrations.ray_blocks import BlockRanker

if TYPE_CHECKING:
    from ray.data import Dataset

    from exp3rt_trt.prompts import RankingMode


def rank_dataset(
    dataset: Dataset,
    engine: str,
    *,
    actors: int,
    threads: int,
    users_per_block: int = 32,
    mode: RankingMode = "score",
    top_k: int | None = None,
    options: dict[str, Any] | None = None,
    id_column: str = "user_id",
    checkpoint: str | None = None,
) -> Dataset:
    """Rank the candidates of every user of a dataset.

    Args:
        dataset: a row for each user: "user" and "candidates" as `Reranker.rank` takes them, and any others.
        engine: what `Reranker.from_pretrained` takes, on every machine.
        actors: processes that rank, each with an engine of its own.
        threads: cores of each, which are also what it asks of Ray.
        users_per_block: users that are ranked together and handed on to be written.
        mode: see `Reranker.rank`.
        top_k: see `Reranker.rank`.
        options: more arguments of `Reranker.from_pretrained`.
        id_column: what tells the rows apart.
        checkpoint: folder or address, the same for all machines, where Ray Data notes which rows are written;
            a job that reads files, writes files and finds notes there passes over those rows. What was
            computed and not yet written is computed again. It stays until you delete it.

    Returns:
        The other columns; "ranking", a list of what `RankedItem.to_dict` returns, null if the user's row
        cannot be ranked as a whole; and "error", why. The numbers are those of a single process. A failure of
        the engine is no row's fault: it ends the job, so that no row is written that was never ranked.

    Example:
        >>> rows = ray.data.read_parquet("/mnt/candidates")  # doctest: +SKIP
        >>> ranked = rank_dataset(rows, "engines/student", actors=8, threads=4, checkpoint="/mnt/done")
        >>> ranked.write_parquet("/mnt/ranked")
    """
    blocks = dataset.repartition(target_num_rows_per_block=users_per_block)
    ranked = blocks.map_batches(
        BlockRanker,
        fn_constructor_args=(engine, {**(options or {}), "threads": threads}),
        fn_kwargs={"mode": mode, "top_k": top_k},
        batch_format="pyarrow",
        batch_size=None,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=threads,
    )
    if checkpoint is not None:
        config = CheckpointConfig(id_column, checkpoint, delete_checkpoint_on_success=False)
        ranked.context.checkpoint_config = config
    return ranked


def group_by_user(pairs: Dataset, *, id_column: str = "user_id") -> Dataset:
    """Gather a dataset with a row for each pair into one with a row for each user, for `rank_dataset`.

    Args:
        pairs: "user", "candidate" and the user's id; the "user" of one of the rows is taken.
        id_column: name of the user's id.

    Returns:
        The id, "user" and "candidates".
    """

    def gather(rows: pa.Table) -> pa.Table:
        first = rows.slice(0, 1).select([id_column, "user"])
        candidates = rows["candidate"].combine_chunks()
        whole = pa.ListArray.from_arrays(pa.array([0, len(candidates)], pa.int32()), candidates)
        return first.append_column("candidates", whole)

    return pairs.groupby(id_column).map_groups(gather, batch_format="pyarrow")
