"""Files that are replaced as a whole: who reads one gets the old content or the new one, and never half of it."""

from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from django.core.files import File
from django.core.files.storage import FileSystemStorage

#: In the folder of the storage itself, which may be another disk than the rest, and to rename needs the same one.
UNFINISHED = "unfinished"


class _Written(File):
    """For Django, a file that was uploaded, and is renamed instead of copied."""

    def temporary_file_path(self) -> str:
        return str(self.name)


class ReplacingStorage(FileSystemStorage):
    """Django's own writes into the file that is there: a worker that is killed meanwhile leaves half of it."""

    def __init__(self, **options: Any):
        super().__init__(allow_overwrite=True, **options)

    def _save(self, name: str, content: Any) -> str:
        folder = Path(self.path(UNFINISHED))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, delete=False) as file:
            try:
                for chunk in content.chunks():
                    file.write(chunk)
                file.flush()
                return super()._save(name, _Written(file, file.name))  # type: ignore[misc]
            finally:
                with suppress(FileNotFoundError):  # renamed
                    Path(file.name).unlink()
