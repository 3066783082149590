"""Plans against hand-made computations, and against the CPU engine's real memory."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt import _core
from exp3rt_trt.engines import footprint
from exp3rt_trt.engines.devices import GpuDevice
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.engines.fleet import Demand, make_fleet_plan
from exp3rt_trt.engines.footprint import read_model
from exp3rt_trt.engines.plan import Device, Plan, Workload, make_plan, planned_device
from exp3rt_trt.engines.recipes import load_recipe
from exp3rt_trt.errors import BuildError, InvalidInputError
from exp3rt_trt.executors.choice import CpuOptions, open_executor
from exp3rt_trt.segments import LAYOUT_FILE
from rank_cases import open_
from segmented import LAYOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GIB = 1 << 30
LLAMA_8B = {  # Llama 3.1
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
# Of a layer: q and o, k and v, gate and up and down; then embedding or output matrix, and the norms.
MATRICES = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096  # 218,103,808
ROWS = 2 * 4096 + 2 * 1024 + 2 * 14336 + 4096  # that have a scale in int8_sq: 43,008
TABLE = 128256 * 4096  # 525,336,576
NORMS = 32 * 2 * 4096 + 4096


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., str]:
    def write(**changes: Any) -> str:
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA_8B, **changes}), encoding="utf-8")
        return str(tmp_path)

    return write


@pytest.fixture
def plan(checkpoint: Callable[..., str]) -> Callable[..., Plan]:
    """Plans the 8B student for a recipe's own memory, or another."""

    def make(target: str, memory: int | None = None, **workload: int) -> Plan:
        device = planned_device(target)
        device = dataclasses.replace(device, memory_bytes=memory or device.memory_bytes)
        return make_plan(
            read_model(checkpoint()), device, Workload(**{"users": 1000, "candidates": 100, **workload})
        )

    return make


@pytest.mark.parametrize(
    ("quantization", "layer"),
    [
        ("none", 2 * MATRICES),
        ("fp8", MATRICES),
        ("nvfp4", MATRICES // 2 + MATRICES // 16),
        ("int8_sq", MATRICES + 4 * ROWS),
        ("int4_awq", MATRICES // 2 + 2 * MATRICES // 128),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_weights_by_quantization(
    checkpoint: Callable[..., str], quantization: str, layer: int, tied: bool
) -> None:
    model = read_model(checkpoint(tie_word_embeddings=tied))
    tables = TABLE if tied else 2 * TABLE
    assert footprint.gpu_weights_bytes(model, quantization, "bf16") == 32 * layer + 2 * (tables + NORMS)


def test_bf16_weights_are_what_llama_has() -> None:
    assert 2 * (32 * MATRICES + 2 * TABLE + NORMS) == 2 * 8_030_261_248  # parameters that Llama 3.1 8B has


def test_h100_in_score_mode(plan: Callable[..., Plan]) -> None:
    """79 GiB; weights and working memory by hand, the rest follows."""
    found = plan("h100", prefix_tokens=500, suffix_tokens=200)
    weights = 32 * MATRICES + 2 * (2 * TABLE + NORMS)  # 9,081,200,640 bytes, 8.46 GiB
    # 8192 tokens, 65,536 numbers of two bytes each (4 x 4096 + 6144 + 3 x 14336 = 65,536): 1 GiB;
    # logits of 256 sequences in fp32: 131,334,144 bytes; the runtime's GiB.
    working = GIB + 256 * 128256 * 4 + GIB
    assert (found.weights_bytes, found.working_bytes) == (weights, working) == (9_081_200_640, 2_278_817_792)
    left = 79 * GIB - weights - working  # 73,465,585,664 bytes, of which the cache gets 0.9 in whole MiB
    assert found.kv_bytes == int(left * 0.9) // 2**20 * 2**20
    # keys and values of 32 layers, 8 heads of 128, one byte each: 64 KiB a token, 2 MiB a block of 32
    assert (found.kv_bytes_per_token, found.block_bytes) == (65536, 2 << 20)
    assert found.blocks == found.kv_bytes // (2 << 20) == 31528
    assert (found.prefix_blocks, found.candidate_blocks) == (16, 7)  # 500 / 32 and 200 / 32, rounded up
    assert (found.step_candidates, found.in_flight) == (40, 40)  # 8192 // 200, below the batch of 256
    assert found.cached_users == (31528 - 40 * 7) // 16 == 1953
    assert (found.fits, found.changes) == (True, ())


def test_reasoning_takes_more_blocks_and_the_whole_batch(plan: Callable[..., Plan]) -> None:
    found = plan("h100", prefix_tokens=500, suffix_tokens=200, reasoning_tokens=128)
    assert found.candidate_blocks == 11  # 328 / 32, rounded up
    assert (found.step_candidates, found.in_flight) == (256, 256)  # a token each, up to max_batch_size
    assert found.cached_users == (31528 - 256 * 11) // 16 == 1794


def test_a100_has_bf16_keys(plan: Callable[..., Plan]) -> None:
    found = plan("a100")
    assert found.kv_bytes_per_token == 2 * 65536
    assert found.weights_bytes == 32 * (MATRICES + 4 * ROWS) + 2 * (2 * TABLE + NORMS)


def test_memory_bounds_what_is_in_flight(plan: Callable[..., Plan]) -> None:
    """12 GiB beside an H100's recipe: 1.42 GiB are left, 1.27 of them for 654 blocks."""
    found = plan("h100", memory=12 * GIB, users=20, candidates=4, prefix_tokens=512, suffix_tokens=192)
    assert found.blocks == 654 == int((12 * GIB - 9_081_200_640 - 2_278_817_792) * 0.9) // (2 << 20)
    # a user with four candidates takes 16 + 4 x 6 = 40 blocks: 16 users and 14 blocks over
    assert (found.step_candidates, found.in_flight) == (42, 42)
    more = plan("h100", memory=12 * GIB, users=20, candidates=4, suffix_tokens=192, reasoning_tokens=64)
    # 16 + 4 x 8 = 48 blocks: 13 users and 30 blocks, which hold a prefix and one candidate more
    assert (more.step_candidates, more.in_flight) == (256, 13 * 4 + 1)
    assert more.cached_users == (654 - 53 * 8) // 16 == 14
    assert more.fits
    assert "14 of 20 users stay cached" in more.changes[0]
    assert "prefixes at most 352 tokens" in more.changes[0]  # (654 - 53 x 8) // 20 = 11 blocks of 32
    assert "spread users over 2 such devices" in more.changes[0]


def test_the_shortened_prefix_of_the_advice_fits(plan: Callable[..., Plan]) -> None:
    few = plan("l4", users=600)
    assert few.cached_users < 600
    prefix = int(few.changes[0].split("at most ")[1].split()[0])
    assert plan("l4", users=600, prefix_tokens=prefix).cached_users >= 600
    assert plan("l4", users=600, prefix_tokens=prefix + 32).cached_users < 600


def test_a_model_that_is_too_large_is_told_with_what_is_large_enough(plan: Callable[..., Plan]) -> None:
    found = plan("h100", memory=8 * GIB)
    assert (found.fits, found.kv_bytes, found.in_flight, found.cached_users) == (False, 0, 0, 0)
    assert "weights and working memory take 10.6 GiB, the device has 8.0 GiB" in found.changes[0]
    assert found.changes[1] == "all 1000 users stay cached on h100, h200, b200"


def test_a_cache_too_small_for_one_candidate_is_told(plan: Callable[..., Plan]) -> None:
    memory = 9_081_200_640 + 2_278_817_792 + (20 << 20)  # 18 MiB: nine blocks
    found = plan("h100", memory=memory)
    assert (found.blocks, found.fits, found.in_flight) == (9, False, 0)
    assert (
        "the KV cache gets 18 MiB, one user with one candidate takes 44 MiB" in found.changes[0]
    )  # 22 blocks


def test_sequences_longer_than_the_recipes_are_told(plan: Callable[..., Plan]) -> None:
    found = plan("h100", users=1, prefix_tokens=3900, suffix_tokens=192, reasoning_tokens=5)
    assert not found.fits
    assert found.changes == (
        "prefix, suffix and reasoning make 4097 tokens, max_seq_len of h100 is 4096: shorten them",
    )
    assert plan("h100", users=1, prefix_tokens=3900, suffix_tokens=192, reasoning_tokens=4).fits


def test_few_candidates_are_all_in_flight(plan: Callable[..., Plan]) -> None:
    assert plan("h100", users=2, candidates=3).in_flight == 6


@pytest.mark.parametrize("field", ["users", "candidates", "prefix_tokens", "suffix_tokens"])
def test_workloads_of_nothing_are_refused(field: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{field} must be at least 1, not 0"):
        Workload(**{"users": 1, "candidates": 1, field: 0})


# --- the CPU engine's real memory ---


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("family", ["llama", "llama_untied", "mistral", "qwen2", "qwen3"])
def test_cpu_weights_are_the_weights_file(
    tiny_engine: Callable[[str, str], Path],
    tiny_checkpoint: Callable[[str], Path],
    family: str,
    dtype: str,
) -> None:
    engine = Engine.open(tiny_engine(family, dtype))
    size = engine.weights_path.stat().st_size
    for model in (read_model(str(engine.path)), read_model(str(tiny_checkpoint(family)))):
        assert footprint.cpu_weights_bytes(model, dtype, "amx") == size


def test_weights_that_are_not_multiplied_are_widened(tiny_engine: Callable[[str, str], Path]) -> None:
    engine = Engine.open(tiny_engine("llama", "int8"))
    packed = [tensor for tensor in engine.tensors if len(tensor.shape) == 3]
    in_bf16 = sum(tensor.num_bytes for tensor in packed if tensor.dtype == "BF16") // 2
    in_int8 = sum(tensor.num_bytes for tensor in packed if tensor.dtype == "I8")
    assert min(in_bf16, in_int8) > 0
    model, size = read_model(str(engine.path)), engine.weights_path.stat().st_size
    assert footprint.cpu_weights_bytes(model, "int8", "avx512_bf16") == size
    assert footprint.cpu_weights_bytes(model, "int8", "avx512_vnni") == size + 4 * in_bf16
    assert footprint.cpu_weights_bytes(model, "int8", "avx2") == size + 4 * (in_bf16 + in_int8)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])  # heads of 16, 32 and 64
def test_cpu_blocks_are_the_executors(
    tiny_engine: Callable[[str, str], Path], family: str, dtype: str
) -> None:
    path = tiny_engine(family, dtype)
    model = read_model(str(path))
    size = footprint.cpu_block_bytes(model.dims, footprint.cpu_kv_dtype(dtype, _core.cpu_isa()))
    for mib in (1, 7):
        with open_(path, kv_cache_mib=mib) as reranker:
            stats = reranker.stats()
        assert stats.blocks_total == (mib << 20) // size
        assert stats.block_size == load_recipe("cpu-bf16").tokens_per_block == footprint.PANEL


def test_a_cpu_plan_is_what_a_reranker_does(tiny_engine: Callable[[str, str], Path]) -> None:
    path = tiny_engine("llama", "bf16")
    device = dataclasses.replace(planned_device("cpu"), memory_bytes=480 << 20)
    found = make_plan(read_model(str(path)), device, Workload(users=10, candidates=5))
    assert found.dtype == "bf16"  # the engine's
    with open_(path, kv_cache_mib=found.kv_bytes >> 20) as reranker:
        assert reranker.stats().blocks_total == found.blocks


def test_cpu_blocks_by_hand(checkpoint: Callable[..., str]) -> None:
    dims = read_model(checkpoint()).dims
    # 32 layers x 8 heads x 64 tokens: a key of 128 numbers (in bf16 two halves: 256), a value of 128
    assert footprint.cpu_block_bytes(dims, "fp32") == 32 * 8 * 64 * (128 + 128) * 4
    assert footprint.cpu_block_bytes(dims, "bf16") == 32 * 8 * 64 * (256 + 128) * 2


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize(("dtype", "kept"), [("fp32", ""), ("bf16", ""), ("bf16", "int8"), ("int8", "int8")])
def test_items_are_what_the_executor_makes_of_them(
    segmented_engine: Callable[[str, str], Path], family: str, dtype: str, kept: str
) -> None:
    path = segmented_engine(family, dtype)
    model = read_model(str(path))
    kv_dtype = kept or footprint.cpu_kv_dtype(dtype, _core.cpu_isa())
    executor = open_executor(Engine.open(path), CpuOptions(1, 1, 64, item_kv_dtype=kept))
    assert isinstance(executor, _core.CpuExecutor)
    for tokens in (1, 64, 65, 600):
        assert footprint.cpu_item_bytes(model.dims, kv_dtype, tokens) == executor.item_bytes(tokens)
    executor.close()
    plan = make_plan(model, planned_device("cpu"), Workload(1, 1, suffix_tokens=65))
    assert plan.item_bytes[kv_dtype] == footprint.cpu_item_bytes(model.dims, kv_dtype, 65)


def test_items_by_hand(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    causal = read_model(checkpoint())
    assert make_plan(causal, planned_device("cpu-bf16"), Workload(1, 1)).item_bytes == {}
    (tmp_path / LAYOUT_FILE).write_text(LAYOUT.to_json(), encoding="utf-8")
    model = read_model(checkpoint())
    # 32 layers x 8 heads x 3 blocks of 64 tokens; a key and a value of 128 numbers each; in int8 with a scale
    # for each of 128 channels and 64 tokens
    blocks = 32 * 8 * 3
    expected = {"bf16": blocks * 64 * 256 * 2, "int8": blocks * (64 * 256 + 4 * (128 + 64))}
    plan = make_plan(model, planned_device("cpu-bf16"), Workload(1, 1, suffix_tokens=150))
    assert plan.item_bytes == expected == {"bf16": 25_165_824, "int8": 13_172_736}
    assert make_plan(model, planned_device("h100"), Workload(1, 1)).item_bytes == {}


# --- models and targets ---


def test_auto_takes_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [GpuDevice("NVIDIA L40", "8.9", 45 * GIB), GpuDevice("NVIDIA H100 PCIe", "9.0", 80 * GIB)]
    monkeypatch.setattr("exp3rt_trt.engines.plan.gpu_devices", lambda: found)
    device = planned_device("auto")
    assert (device.recipe.name, device.memory_bytes) == ("l40s", 45 * GIB)
    assert "NVIDIA L40" in str(device.warning)


def test_auto_without_a_gpu_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exp3rt_trt.engines.plan.gpu_devices", list)
    assert planned_device("auto") == planned_device("cpu")
    assert planned_device("cpu").isa == _core.cpu_isa()


def test_a_named_cpu_has_its_own_instruction_set() -> None:
    assert isinstance(planned_device("cpu-avx2"), Device)
    assert [planned_device(name).isa for name in ("cpu-avx2", "cpu-avx512", "cpu-bf16")] == [
        "avx2",
        "avx512",
        "avx512_bf16",
    ]


def test_unknown_targets_and_models_are_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="'h300'"):
        planned_device("h300")
    with pytest.raises(BuildError, match="no such directory or file"):
        read_model(str(tmp_path / "nothing" / "here" / "at all"))


DEMAND = Demand(1_000_000, visits=3, peak_factor=2, candidates_per_s=50, price_per_hour=0.25)


def test_a_fleet_by_hand(checkpoint: Callable[..., str]) -> None:
    workload = Workload(1, 100, prefix_tokens=500)
    fleet, machine = make_fleet_plan(read_model(checkpoint()), planned_device("h100"), workload, DEMAND)
    peak = 3_000_000 / 86_400 * 2
    assert fleet.peak_visits_per_s == pytest.approx(peak)
    assert fleet.peak_candidates_per_s == pytest.approx(100 * peak)
    assert fleet.machines == 199  # 6,944.4 candidates/s by 35 of each
    assert (fleet.daily_tokens_cold, fleet.daily_tokens_warm) == (3_000_000 * 19_700, 3_000_000 * 19_200)
    assert (fleet.price_per_hour, fleet.price_per_day) == (49.75, 1194.0)
    assert fleet.price_per_1000_visits == pytest.approx(0.398)
    assert fleet.prefix_bytes_per_user == 16 * 32 * 64 * 1024  # 500 tokens in blocks of 32, fp8
    assert fleet.prefix_bytes == 1_000_000 * fleet.prefix_bytes_per_user
    assert fleet.cached_users == 199 * machine.cached_users == 199 * 1954
    assert fleet.machines_for_all == 512
    assert any("spread users over" in change for change in machine.changes)


def test_a_fleet_that_holds_all_says_so(checkpoint: Callable[..., str]) -> None:
    few = dataclasses.replace(DEMAND, daily_users=1000)
    device = planned_device("h100")
    fleet, machine = make_fleet_plan(read_model(checkpoint()), device, Workload(1, 100), few)
    assert (fleet.machines, fleet.cached_users, machine.changes) == (1, 1000, ())


@pytest.mark.parametrize(
    ("field", "value"),
    [("daily_users", 0), ("visits", float("nan")), ("peak_factor", 0.5), ("utilization", 1.5)],
)
def test_a_demand_that_means_nothing_is_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=field):
        dataclasses.replace(DEMAND, **{field: value})
