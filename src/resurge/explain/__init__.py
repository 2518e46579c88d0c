"""What a network is, costs and responds to: tables, diagrams, receptive fields, attention maps."""
