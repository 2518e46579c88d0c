"""How fast a network runs here, beside what people use: `resurge bench`. See docs/performance.md."""
