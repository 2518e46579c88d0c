"""What a network is, costs and looks at: tables, diagrams, receptive fields, attention maps."""
