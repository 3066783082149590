"""Makes a record of pytest-benchmark's JSON: `record_latency.py BENCHMARK.json OUT.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from records import host, write_record


def main() -> None:
    """Keep names, groups and extra_info of the benchmarks that have percentiles."""
    source, out = map(Path, sys.argv[1:])
    benchmarks = json.loads(source.read_text(encoding="utf-8"))["benchmarks"]
    rows = [
        {"group": each["group"], "name": each["name"], "extra_info": each["extra_info"]}
        for each in benchmarks
        if "p50_s" in each["extra_info"]
    ]
    facts = {key: rows[0]["extra_info"][key] for key in ("dtype", "threads", "isa")}
    write_record(out, {"kind": "latency", "host": host(), **facts, "rows": rows})


if __name__ == "__main__":
    main()
