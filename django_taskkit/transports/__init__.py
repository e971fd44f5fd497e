"""Kombu transports that do not lose messages: thin subclasses, each chosen by one Celery setting."""
