"""How many machines, and what they cost: from daily users, one machine's plan and its measured rate."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.engines.plan import Workload, make_plan
from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from exp3rt_trt.engines.footprint import PlannedModel
    from exp3rt_trt.engines.plan import Device, Plan

DAY_S = 86_400


@dataclass(frozen=True)
class Demand:
    """What a fleet is asked for, and what one of its machines gives.

    Args:
        daily_users: users who come on a day.
        visits: rankings of each of them on that day, on average.
        peak_factor: the busiest time's visits a second, as a multiple of the day's mean.
        candidates_per_s: what one machine rates, measured with such prompts and so many candidates.
        price_per_hour: of one machine.
        utilization: share of that rate that is planned with at the peak, so that queues stay short.
    """

    daily_users: int
    visits: float
    peak_factor: float
    candidates_per_s: float
    price_per_hour: float
    utilization: float = 0.7

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (value > 0 and math.isfinite(value)):
                raise InvalidInputError(f"{field.name} must be positive, not {value}")
        if self.peak_factor < 1:
            raise InvalidInputError(f"peak_factor must be at least 1, not {self.peak_factor}")
        if self.utilization > 1:
            raise InvalidInputError(f"utilization must be at most 1, not {self.utilization}")


@dataclass(frozen=True)
class FleetPlan:
    """A fleet that is sized for the peak and runs all day.

    Attributes:
        mean_visits_per_s: Over the day.
        peak_visits_per_s: At the busiest time.
        peak_candidates_per_s: Then.
        daily_tokens_cold: Prompt tokens of a day, if no visit finds its user's prefix.
        daily_tokens_warm: If every visit does: those of candidates alone.
        machines: As many as the peak takes.
        price_per_hour: Of all of them.
        price_per_day: The same for 24 hours.
        price_per_1000_visits: Of that day's.
        prefix_bytes_per_user: Keys and values, in whole blocks.
        prefix_bytes: Of all daily users.
        cached_users: Whose prefixes all machines hold together, if each user has one machine.
        machines_for_all: As many as hold the prefixes of all daily users; 0 if one machine holds none.
    """

    mean_visits_per_s: float
    peak_visits_per_s: float
    peak_candidates_per_s: float
    daily_tokens_cold: int
    daily_tokens_warm: int
    machines: int
    price_per_hour: float
    price_per_day: float
    price_per_1000_visits: float
    prefix_bytes_per_user: int
    prefix_bytes: int
    cached_users: int
    machines_for_all: int


def make_fleet_plan(
    model: PlannedModel, device: Device, workload: Workload, demand: Demand
) -> tuple[FleetPlan, Plan]:
    """Computes a fleet.

    Args:
        model: As `read_model` reads it.
        device: Of each machine.
        workload: A visit's candidates and prompts; its users are not read.
        demand: What the fleet is asked for.

    Returns:
        The fleet, and the plan of one machine, which is to hold its share of the users.

    Example:
        >>> demand = Demand(1_000_000, 3, 3, candidates_per_s=50, price_per_hour=0.2)
        >>> fleet, machine = make_fleet_plan(model, planned_device("cpu"), Workload(1, 100), demand)
    """
    visits = demand.daily_users * demand.visits
    peak = visits / DAY_S * demand.peak_factor
    machines = math.ceil(peak * workload.candidates / (demand.candidates_per_s * demand.utilization))
    share = math.ceil(demand.daily_users / machines)
    plan = make_plan(model, device, dataclasses.replace(workload, users=share))
    own = workload.candidates * workload.suffix_tokens
    prefix_bytes = plan.prefix_blocks * plan.block_bytes
    price_per_day = machines * demand.price_per_hour * 24
    fleet = FleetPlan(
        mean_visits_per_s=visits / DAY_S,
        peak_visits_per_s=peak,
        peak_candidates_per_s=peak * workload.candidates,
        daily_tokens_cold=round(visits * (workload.prefix_tokens + own)),
        daily_tokens_warm=round(visits * own),
        machines=machines,
        price_per_hour=machines * demand.price_per_hour,
        price_per_day=price_per_day,
        price_per_1000_visits=price_per_day / visits * 1000,
        prefix_bytes_per_user=prefix_bytes,
        prefix_bytes=demand.daily_users * prefix_bytes,
        cached_users=min(demand.daily_users, machines * plan.cached_users),
        machines_for_all=math.ceil(demand.daily_users / plan.cached_users) if plan.cached_users else 0,
    )
    return fleet, plan
