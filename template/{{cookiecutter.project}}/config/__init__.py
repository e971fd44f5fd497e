# Imported here, so that every process has the app before the first task is sent.
from config.celery import app as celery_app

__all__ = ["celery_app"]
