"""A headless Chromium for tests of pages; skipped with a reason where it is absent.

    python -m tests.results.browser PAGE.html FOLDER

takes the screenshots of a report for the docs' gallery.
"""

import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

DESKTOP, PHONE = (1400, 900), (390, 844)
"""Width and height of the screens on which pages are looked at."""


@contextmanager
def chromium() -> Iterator:
    """A selenium driver that records the console and every request; nothing is downloaded."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--window-size=1300,1000",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=programs[1])
    )
    driver.set_page_load_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


def set_screen(driver, size: tuple[int, int] = DESKTOP, dark: bool = False) -> None:
    """Gives the page a screen of this size, in a light or dark theme, from now on."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": size[0],
            "height": size[1],
            "deviceScaleFactor": 1,
            "mobile": size[0] < 600,
        },
    )
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})


def accessibility_problems(driver) -> list[str]:
    """What axe-core finds in the page as it is now shown: one line per rule and element."""
    axe_package = pytest.importorskip(
        "selenium_axe_python", reason="selenium-axe-python is not installed"
    )
    axe = axe_package.Axe(driver)
    axe.inject()
    return [
        f"{found['impact']}: {found['id']}: {node['target']}: {node['failureSummary']}"
        for found in axe.run()["violations"]
        for node in found["nodes"]
    ]


def too_wide(driver) -> list[str]:
    """Elements that reach beyond the screen without standing in a box that scrolls (`.scroll`)."""
    return driver.execute_script("""
        const wide = document.documentElement.clientWidth + 0.5;
        return [...document.querySelectorAll("body *")]
          .filter((one) => one.getClientRects().length && one.getBoundingClientRect().right > wide)
          .filter((one) => !one.closest(".scroll") || one.matches(".scroll"))
          .map((one) => `${one.tagName}.${one.getAttribute("class")}#${one.id}`);
    """)


def screenshots(page: Path, folder: Path) -> list[Path]:
    """Pictures of a report for a gallery, as PNG: its first screen and its questions.

    Both are taken on a desktop and on a phone, in the light and in the dark theme. Returns the
    files; `folder` is made if it is absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with chromium() as driver:
        for device, size in (("desktop", DESKTOP), ("phone", PHONE)):
            for theme in ("light", "dark"):
                set_screen(driver, size, theme == "dark")
                for view, hash_ in (("answer", ""), ("questions", "#questions?")):
                    driver.get("about:blank")
                    driver.get(page.resolve().as_uri() + hash_)
                    file = folder / f"report_{view}_{device}_{theme}.png"
                    shot = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
                    # 256 colours, chosen so that small marks keep theirs: about 80 KiB
                    few = shot.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=4)
                    few.save(file, optimize=True)
                    files.append(file)
    return files


if __name__ == "__main__":
    for file in screenshots(Path(sys.argv[1]), Path(sys.argv[2])):
        print(f"written: {file}")
