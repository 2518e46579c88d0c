"""The grammar: one file per axis, specs, their text, and the named models."""

from resurge.arch import zoo as _zoo  # noqa: F401  fills the table of names, by which every spec prints
