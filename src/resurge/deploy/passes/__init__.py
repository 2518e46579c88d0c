"""The rewriting passes, by what they rewrite. `resurge.deploy.rewrite.PASSES` lists and orders them."""
