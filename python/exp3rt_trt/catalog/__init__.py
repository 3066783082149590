"""Catalogues: the keys and values of items, computed ahead of time and kept on disk."""

from exp3rt_trt.catalog.build import Counts, build_catalog
from exp3rt_trt.catalog.catalog import Catalog
from exp3rt_trt.catalog.header import CatalogHeader
from exp3rt_trt.catalog.verify import CatalogInfo, Damage, catalog_info, verify_catalog

__all__ = [
    "Catalog",
    "CatalogHeader",
    "CatalogInfo",
    "Counts",
    "Damage",
    "build_catalog",
    "catalog_info",
    "verify_catalog",
]
