"""Does a worker, a beat, a relay, a web process work? Cheap enough to be asked every ten seconds.

What a probe runs must not import Django or Celery, which alone costs half a second: this package, `files`, `judging`
and `probe` use the standard library only. See docs/health.md.
"""
