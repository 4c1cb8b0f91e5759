"""Pictures of a page in headless Chromium: wide and light, narrow and dark."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

VIEWS = ((1400, 1000, "light"), (390, 844, "dark"))


def screenshots(address: str) -> Iterator[bytes]:
    """One PNG per view; none, with a sentence, where Chromium is not installed."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        print("Chromium is not installed where this page was built: no pictures of the report.")
        return
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    service = webdriver.ChromeService(executable_path=str(programs[1]))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        for width, height, colours in VIEWS:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            preferred = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
            driver.get(address)
            time.sleep(1)
            yield driver.get_screenshot_as_png()
    finally:
        driver.quit()
