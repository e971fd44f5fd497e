"""The kinds of objects that should not travel in a message, each with its remedy.

Only what is known to do harm is named here. What is unknown is left to the serializer, which refuses what it can't
encode.
"""

from __future__ import annotations

import asyncio
import io
import queue
import socket
import tempfile
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.files.base import File
from django.core.files.uploadedfile import UploadedFile
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.models import Model, QuerySet
from django.db.models.fields.files import FieldFile
from django.db.models.manager import BaseManager
from django.db.models.query import ModelIterable, RawQuerySet
from django.http import HttpRequest
from django.utils.connection import BaseConnectionHandler, ConnectionProxy
from django.utils.functional import LazyObject, Promise


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Objects that should not travel, known by their classes or by the full names of classes.

    By name where whoever has no such object would have to import its class.
    """

    classes: tuple[type, ...] = ()
    names: tuple[str, ...] = ()
    what: Callable[[Any], str]
    """A noun phrase for such an object."""
    remedy: Callable[[Any, str], str]
    """What to do instead, for the object and the name it has in the call."""


def _says(text: str) -> Callable[..., str]:
    return lambda *_: text


def _label(model: Any) -> str:
    return model._meta.label if model is not None else "some model"


def _model_instance(value: Any) -> str:
    saved = "an instance" if not value._state.adding else "an unsaved instance"
    return f"{saved} of the model {_label(type(value))}"


def _key_of_instance(value: Any, name: str) -> str:
    first = "" if not value._state.adding else "save it first, then "
    return f"{first}pass {name}.pk and fetch the row in the task"


def _of_model(noun: str) -> Callable[[Any], str]:
    return lambda value: f"{noun} of {_label(vars(value).get('model'))}"


def _list_of_queryset(value: Any, name: str) -> str:
    if issubclass(vars(value).get("_iterable_class", ModelIterable), ModelIterable):
        return f"pass a list of primary keys: list({name}.values_list('pk', flat=True))"
    return f"pass a list: list({name})"  # of values(), or the like


_FILE = "pass its path; if it has none, store it first and pass the name that the storage gave it"

KINDS: tuple[Kind, ...] = (
    Kind(classes=(Model,), what=_model_instance, remedy=_key_of_instance),
    Kind(
        classes=(QuerySet,),
        what=_of_model("a queryset"),
        remedy=_list_of_queryset,
    ),
    Kind(
        classes=(RawQuerySet,),
        what=_of_model("a raw queryset"),
        remedy=lambda value, name: f"pass a list of primary keys: [row.pk for row in {name}]",
    ),
    Kind(
        classes=(BaseManager,),
        what=_of_model("a manager"),
        remedy=lambda value, name: (
            f"pass the keys that select the rows: list({name}.values_list('pk', flat=True)); the task has the manager"
        ),
    ),
    Kind(
        classes=(Promise,),
        what=_says("a lazy text, which the worker would translate into another language"),
        remedy=lambda value, name: f"pass str({name})",
    ),
    Kind(
        classes=(LazyObject,),
        what=_says("a lazy object, such as request.user"),
        remedy=lambda value, name: f"pass the key of what it stands for, such as {name}.pk",
    ),
    Kind(
        classes=(HttpRequest,),
        names=("rest_framework.request.Request",),
        what=_says("a request"),
        remedy=lambda value, name: f"pass the values that the task needs, such as {name}.user.pk",
    ),
    Kind(
        names=("django.contrib.sessions.backends.base.SessionBase",),
        what=_says("a session"),
        remedy=lambda value, name: "pass the values that the task needs from it",
    ),
    Kind(
        classes=(FieldFile,),
        what=_says("the file of a model's field"),
        remedy=lambda value, name: f"pass the primary key of its row, or {name}.name",
    ),
    Kind(
        classes=(UploadedFile,),
        what=_says("an uploaded file, which is gone after the request"),
        remedy=_says("store it first and pass the name that the storage gave it"),
    ),
    Kind(classes=(File,), names=("tempfile._TemporaryFileWrapper",), what=_says("a file"), remedy=_says(_FILE)),
    Kind(
        classes=(io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper),
        what=_says("an open file"),
        remedy=_says(_FILE),
    ),
    Kind(classes=(tempfile.SpooledTemporaryFile,), what=_says("a temporary file"), remedy=_says(_FILE)),
    Kind(
        classes=(BaseDatabaseWrapper, BaseConnectionHandler, ConnectionProxy, CursorWrapper),
        names=(
            "sqlite3.Connection",
            "sqlite3.Cursor",
            "psycopg.Connection",
            "psycopg.AsyncConnection",
            "psycopg.Cursor",
            "psycopg.AsyncCursor",
            "psycopg2.extensions.connection",
            "psycopg2.extensions.cursor",
            "MySQLdb.connections.Connection",
            "MySQLdb.cursors.BaseCursor",
            "pymysql.connections.Connection",
            "pymysql.cursors.Cursor",
            "redis.client.Redis",
            "redis.asyncio.client.Redis",
        ),
        what=_says("a connection or cursor"),
        remedy=_says("pass the alias or the URL of what it is connected to, or the rows as a list"),
    ),
    Kind(
        classes=(
            types.GeneratorType,
            map,
            filter,
            zip,
            enumerate,
            reversed,
            type(iter([])),
            type(iter(())),
            type({}.keys()),
            type({}.values()),
            type({}.items()),
        ),
        what=_says("an iterator or a view"),
        remedy=lambda value, name: f"pass a list: list({name})",
    ),
    Kind(
        classes=(types.CoroutineType, types.AsyncGeneratorType, asyncio.Future),
        what=_says("something to be awaited"),
        remedy=_says("await it first and pass what comes of it"),
    ),
    Kind(
        classes=(
            type(threading.Lock()),
            type(threading.RLock()),
            threading.Condition,
            threading.Event,
            threading.Semaphore,
            threading.Thread,
            threading.local,
            queue.Queue,
            socket.socket,
        ),
        what=_says("something of this process alone (a lock, a thread, a queue, a socket)"),
        remedy=_says("pass plain values; tasks share a lock through the database or a cache"),
    ),
)
