"""The story told by ``millstream quickstart``: real flights, from the first event to five deployments."""
