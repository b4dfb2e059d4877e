"""Object stores for tests: moto's server for S3, and Azurite for Azure where it is installed (npm install azurite)."""

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from raftnode.cli.local_cluster import free_ports

REGION = "eu-central-1"
BUCKET = "backups"
AZURITE = os.environ.get("RAFTNODE_TEST_AZURITE") or shutil.which("azurite-blob")
"""The program, if there is one."""
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, which everybody knows."""
STARTS_S = 30.0


@contextmanager
def s3() -> Iterator[dict[str, Any]]:
    """The S3Settings of an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"aws_access_key_id": "access", "aws_secret_access_key": "s3cret"}
        client = boto3.client("s3", endpoint_url=url, region_name=REGION, **keys)
        # All servers of a process share what they have.
        bucket = f"{BUCKET}-{os.urandom(8).hex()}"
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield {
            "BucketName": bucket,
            "AwsRegionName": REGION,
            "AwsAccessKey": "access",
            "AwsSecretKey": "s3cret",
            "CustomServerUrl": url,
            "RemoteFolderName": "cluster/shop",
        }
    finally:
        server.stop()


@contextmanager
def azure() -> Iterator[dict[str, Any]]:
    """The AzureSettings of an empty container."""
    if AZURITE is None:
        pytest.skip("azurite-blob is not installed (npm install azurite)")
    [port] = free_ports(1)
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    process = subprocess.Popen([AZURITE, *where, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/{ACCOUNT}"
        _create_container(url)
        yield {
            "StorageContainer": BUCKET,
            "AccountName": ACCOUNT,
            "AccountKey": ACCOUNT_KEY,
            "CustomServerUrl": url,
            "RemoteFolderName": "shop",
        }
    finally:
        process.kill()
        process.wait()


def _create_container(url: str) -> None:
    """As obstore makes none: one request that is signed with the account's key, tried until the server is there."""
    now, version = f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}", "2021-08-06"
    head = f"PUT{chr(10) * 12}x-ms-date:{now}\nx-ms-version:{version}\n"
    text = f"{head}/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    signed = base64.b64encode(hmac.digest(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256)).decode()
    headers = {"x-ms-date": now, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{signed}"}
    request = urllib.request.Request(
        f"{url}/{BUCKET}?restype=container", method="PUT", headers=headers | {"Content-Length": "0"}
    )
    until_s = time.monotonic() + STARTS_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.05)
