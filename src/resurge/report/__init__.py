"""A run directory turned into one HTML page, read from its files alone (no torch)."""

from resurge.report.page import write_report

__all__ = ["write_report"]
