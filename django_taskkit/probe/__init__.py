"""Every way a task can die, tried on the project's own broker, result backend, pool and Celery."""
