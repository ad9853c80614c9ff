"""What a scenario lowers to: workers and their routes, machines, clients, random streams."""
