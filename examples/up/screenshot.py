"""`python -m examples.up.screenshot FILE`, or `make screenshot`: a picture of the page."""

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from examples.processes import ROOT

WORDS = "two green stars on a black background"
PATIENCE_MS = 120_000


async def take(file: Path) -> None:
    """Start everything in a folder of its own, search, and write what the page shows."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"UP_DIR": folder, "UP_PORT": "0", "GALLERY_PORT": "0"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", "examples.up"),
            cwd=ROOT,
            env={**os.environ, **own},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            address = ""
            while not address:
                line = (await process.stdout.readline()).decode()
                address = found[1] if (found := re.match(r"page +(\S+)", line)) else ""
            reading = asyncio.create_task(process.stdout.read())  # so that it never waits for us
            await _photograph(address, file)
        finally:
            process.send_signal(signal.SIGINT)
            await process.wait()
        await reading


async def _photograph(address: str, file: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": 1100, "height": 760})
        page.set_default_timeout(PATIENCE_MS)
        await page.goto(address)
        await page.locator("#grid .card").nth(30).wait_for()
        await page.locator("#words").fill(WORDS)
        await page.keyboard.press("Enter")
        await page.get_by_text(f"Nearest to “{WORDS}”").wait_for()
        loaded = (
            "() => [...document.querySelectorAll('#grid img')].slice(0, 12).every(i => i.complete)"
        )
        await page.wait_for_function(loaded)
        done = "() => !document.querySelector('#state').innerText.includes('open')"
        await page.wait_for_function(done)
        await page.screenshot(path=file)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1])))
