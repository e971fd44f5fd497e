"""What hooks into Celery's worker: installed by the app alone, for every task."""
