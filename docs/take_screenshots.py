"""Take the screenshots of docs/looking-inside.md: needs Chromium, its driver, and selenium.

lucid profile resnest_50 --json > p.json
lucid viz resnest_50 --profile p.json -o page.html
python docs/take_screenshots.py page.html docs/pictures
"""

import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,947")
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")

RUN = "[...paths.keys()].find((path) => path.startsWith('layer3.1–'))"
FUSED = "data.stages.findIndex((stage) => stage.name === 'fuse-split-attention')"
CHANGED = (
    "[...homes.keys()].find((item) => data.nodes[item][3] === 'layer2.1.conv2'"
    " && data.nodes[item][4] === 'changed')"
)
SHOTS = {
    "page": "reveal(nodeNamed('sum_7'))",
    "page-pass": f"setStage({FUSED}); reveal({CHANGED}); pan(-250, -60)",
    "page-search": "toggle('layer2'); $('search').value = 'layer3 split_attention';"
    " $('search').focus()",
    "page-memory": "press($('memory-button'), $('memory')); reveal(nodeNamed('relu_6'))",
}
DARK_SHOTS = {
    "page-time-dark": "$('colour').value = 'time'; colour(); toggle('layer3');"
    f" toggle({RUN}); toggle('layer3.2'); pan(0, -560)",
}


def take(page: Path, folder: Path, shots: dict[str, str], flags: tuple[str, ...]) -> None:
    """One picture for each script, which is run in a fresh page."""
    options = webdriver.ChromeOptions()
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.ChromeService(shutil.which("chromedriver"))
        browser = webdriver.Chrome(options=options, service=driver)
        for name, script in shots.items():
            browser.get(page.resolve().as_uri())
            browser.execute_script(script)
            browser.save_screenshot(str(folder / f"{name}.png"))
        browser.quit()


if __name__ == "__main__":
    page, folder = map(Path, sys.argv[1:])
    take(page, folder, SHOTS, FLAGS)
    take(page, folder, DARK_SHOTS, (*FLAGS, *DARK))
