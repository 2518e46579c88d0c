"""From a trained network to what production runs: exact rewriting, export, prediction, serving."""
