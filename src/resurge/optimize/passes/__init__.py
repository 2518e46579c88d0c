"""The rewriting passes, by what they rewrite. `resurge.optimize.rewrite.PASSES` lists and orders them."""
