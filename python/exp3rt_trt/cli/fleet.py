"""The table of `exp3rt-trt plan --daily-users`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exp3rt_trt.engines.fleet import Demand, FleetPlan
    from exp3rt_trt.engines.plan import Workload


def fleet_rows(fleet: FleetPlan, workload: Workload, demand: Demand) -> list[tuple[str, str]]:
    """Return names and values."""
    saved = 1 - fleet.daily_tokens_warm / fleet.daily_tokens_cold
    share = fleet.cached_users / demand.daily_users
    return [
        ("visits", f"{fleet.mean_visits_per_s:,.1f} a second, {fleet.peak_visits_per_s:,.1f} at the peak"),
        ("candidates", f"{workload.candidates} of a visit, {fleet.peak_candidates_per_s:,.0f} a second then"),
        ("prompt tokens", f"{fleet.daily_tokens_cold:,} a day, {saved:.1%} fewer with all prefixes cached"),
        (
            "machines",
            f"{fleet.machines:,}, each {demand.utilization:.0%} of {demand.candidates_per_s:g} candidates/s",
        ),
        ("price", f"{fleet.price_per_hour:,.2f} an hour, {fleet.price_per_day:,.2f} a day"),
        ("", f"{fleet.price_per_1000_visits:.4f} for 1,000 visits"),
        (
            "users' prefixes",
            f"{fleet.prefix_bytes / 2**30:,.1f} GiB, {fleet.prefix_bytes_per_user / 2**20:.2f} MiB each",
        ),
        ("stay cached", f"{fleet.cached_users:,} users ({share:.1%}); all with {_machines(fleet)}"),
    ]


def _machines(fleet: FleetPlan) -> str:
    return f"{fleet.machines_for_all:,} machines" if fleet.machines_for_all else "larger machines"
