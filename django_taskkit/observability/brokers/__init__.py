"""How each broker is asked what waits in its queues: ``look(app, connection, names)``."""
