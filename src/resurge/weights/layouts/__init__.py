"""The names that other packages give to the same tensors: one file per package, listed in `naming`."""
