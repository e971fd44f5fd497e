"""Files in a bucket, where workers and web are on different machines: by a server that speaks as Amazon's does."""

import pytest

pytestmark = pytest.mark.template

KEEP = """
import boto3, django
boto3.client("s3", region_name="eu-central-1").create_bucket(
    Bucket="shop-media", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
)
django.setup()
from django.core.files.base import ContentFile
from django.core.files.storage import storages
for name in ("default", "exports"):
    kept = storages[name].save("a/file.txt", ContentFile(name.encode()))
    with storages[name].open(kept) as file:
        print(name, kept, file.read().decode(), storages[name].exists("a/file.txt"))
print(storages["exports"].save("a/file.txt", ContentFile(b"another")) != "a/file.txt")
for content in (b"a thumbnail", b"the same, made anew"):
    print(storages["thumbnails"].save("1.jpg", ContentFile(content)), storages["default"].listdir("thumbnails"))
"""


@pytest.fixture
def bucket_server():
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(
        port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_files_of_tasks_are_kept_in_the_bucket_where_only_thumbnails_are_overwritten(bake, bucket_server):
    project = bake(deployment="kubernetes", database="postgresql", broker="redis")
    shown = project.run(
        "-c",
        "import config\n" + KEEP,
        DJANGO_SETTINGS_MODULE="config.settings.development",
        MEDIA_BUCKET="shop-media",
        AWS_REGION="eu-central-1",
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_ENDPOINT_URL_S3=bucket_server,
    )

    said = [line for line in shown.splitlines() if " INFO " not in line]
    assert said == [
        "default a/file.txt default True",
        "exports a/file.txt exports True",
        "True",
        "1.jpg ([], ['1.jpg'])",
        "1.jpg ([], ['1.jpg'])",
    ]
