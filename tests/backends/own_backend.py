"""A project's own backend."""

from django_taskkit.backends.backend import CeleryBackend


class OwnBackend(CeleryBackend):
    pass
