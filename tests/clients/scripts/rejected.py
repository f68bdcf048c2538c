"""200 requests of 100 KB by one of Python's HTTP clients; prints how often each status came. See tests/clients/http.rs."""

import asyncio
import collections
import http.client
import json
import os
import sys
import urllib.parse

REQUESTS = 200
BODY = b"x" * 100_000

url = os.environ["BASE_URL"] + "/chat/completions"
headers = {"Authorization": "Bearer " + os.environ["KEY"], "Content-Type": "application/json"}


def by_http_client():
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc)
    for _ in range(REQUESTS):
        connection.request("POST", address.path, BODY, headers)
        response = connection.getresponse()
        response.read()
        yield response.status


async def by_aiohttp():
    import aiohttp

    connector = aiohttp.TCPConnector(limit=16)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def post():
            async with session.post(url, data=BODY) as response:
                await response.read()
                return response.status

        return await asyncio.gather(*(post() for _ in range(REQUESTS)))


client = sys.argv[1]
statuses = asyncio.run(by_aiohttp()) if client == "aiohttp" else list(by_http_client())
print(json.dumps(collections.Counter(statuses)))
