"""What is carried home, many pictures and a camera, in a real browser: what is saved and shown, pixel by pixel."""

import base64
import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from fcn_hf.palettes import distinct_palette, overlay
from space.kinds import load_segmenters
from space.pictures import read_picture
from tests.space.test_browser import CHROMIUM, FIRST, PATIENCE, QUIET, SERIOUS, pytestmark, sync_api

__all__ = ["pytestmark"]

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *CAMERA])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """The page on a phone, opened; afterwards all fits its screen, and nothing may have gone wrong in it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = browser.new_page(viewport={"width": 390, "height": 844}, permissions=["camera"], reduced_motion="reduce")
    page.set_default_timeout(PATIENCE)
    problems = []
    page.on("console", lambda entry: problems.append(entry.text) if entry.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(server)
    page.wait_for_selector(".fcn-panel")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found if each["impact"] in SERIOUS] == []
    page.close()
    assert problems == []


def saved(page, control):
    """The name and the content of what a control saves, which is pressed by keyboard."""
    with page.expect_download() as download:
        control.press("Enter")
    return download.value.suggested_filename, io.BytesIO(open(download.value.path(), "rb").read())


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def set_opacity(page, percent):
    page.locator("#fcn-opacity input[type=range]").fill(str(percent))
    page.wait_for_function(
        "value => +getComputedStyle(document.querySelector('.fcn-mask')).opacity === value", arg=percent / 100
    )


def test_what_is_saved_is_what_is_seen(page, model_folders):
    """The overlay at the slider's opacity and with outlines only; and everything as a zip, from the server."""
    set_opacity(page, 35)
    segmenters, picture = load_segmenters(model_folders), read_picture(FIRST)
    masks = [segmenter.segment(picture).mask for segmenter in segmenters]
    legend = page.locator(".fcn-class").all()
    colours = np.array([each.get_attribute("data-colour").split(",") for each in legend], np.uint8)
    photo = page.locator(".fcn-results").get_attribute("style").split("base64,")[1].split(")")[0]
    shown = Image.open(io.BytesIO(base64.b64decode(photo)))

    name, content = saved(page, page.locator(".fcn-overlay").nth(2))
    found, expected = pixels(Image.open(content)), pixels(overlay(shown, masks[2], colours, 0.35))
    assert name == "fcn-8s-overlay.png" and found.shape == expected.shape and np.abs(found - expected).max() <= 3

    page.locator("#fcn-outlines").click()
    outlined = pixels(Image.open(saved(page, page.locator(".fcn-overlay").nth(2))[1]))
    other = (np.abs(outlined - pixels(shown)) > 3).any(axis=-1)
    assert 0 < other.mean() < 1 and (outlined[other] == colours[masks[2]][other]).all()
    page.locator("#fcn-outlines").click()

    name, content = saved(page, page.get_by_role("button", name="Everything (zip)"))
    with zipfile.ZipFile(content) as archive:
        figures = json.loads(archive.read("figures.json"))
        assert name == "street-1.zip" and len(archive.namelist()) == 7
        assert figures["picture"] == FIRST.name and figures["palette"] == colours.tolist()
        for entry, mask in zip(figures["networks"], masks, strict=True):
            assert np.array_equal(Image.open(archive.open(entry["label_map"])), mask) and 0 <= entry["mean_iou"] <= 1
            laid_over = pixels(Image.open(archive.open(entry["overlay"])))
            assert (laid_over == pixels(overlay(picture, mask, colours, 0.35))).all()


def test_many_pictures_can_be_cancelled_and_what_is_done_is_kept(page, noise_picture, tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(40)]
    for path in paths:
        noise_picture(800, 600, seed=int(path.stem)).save(path)
    paths[0].write_text("no picture")
    page.get_by_role("tab", name="Many pictures").click()
    page.set_input_files("#fcn-many-files input[type=file]", paths)
    page.locator("#fcn-many-files tr").nth(len(paths) - 1).wait_for()
    page.get_by_role("button", name="Segment them").press("Enter")
    page.get_by_role("status").filter(has_text=re.compile(r"^([3-9]|\d\d) of 40: ")).wait_for()
    page.get_by_role("button", name="Cancel").press("Enter")
    said = page.get_by_role("status").filter(has_text="Stopped: ")
    said.wait_for()
    done = int(re.search(r"(\d+) of 40 pictures are done. 1 could not be", said.inner_text())[1])
    assert 1 <= done < 39
    assert page.locator("#fcn-many-overlays button img").count() == done
    assert page.locator(".fcn-figures tbody tr").count() == done + 1
    assert "no picture in a known format" in page.locator(".fcn-failed").inner_text()
    name, content = saved(page, page.locator("button.fcn-zip:visible"))
    with zipfile.ZipFile(content) as archive:
        assert name == "fcn-8s-masks.zip" and len(archive.namelist()) == 2 * done + 1
        assert len(json.loads(archive.read("figures.json"))["pictures"]) == done + 1


def test_a_camera_is_seen_in_the_legends_colours_until_it_is_stopped(page):
    set_opacity(page, 100)
    page.get_by_label("Colours that colour-blind eyes tell apart").click()
    page.get_by_role("tab", name="Live").click()
    camera = page.locator("#fcn-camera")
    camera.get_by_text("Click to Access Webcam").click()
    camera.get_by_role("button", name="Record").press("Enter")
    figure = page.locator(".fcn-live")
    figure.filter(has_text=re.compile(r"\d+\.\d pictures a second")).wait_for()
    rate = float(re.search(r"([\d.]+) pictures a second", figure.inner_text())[1])
    # Eight answers, a picture every 0.2 seconds: seven gaps of them, or five if the first answer came late.
    assert 0 < rate <= 7 and "FCN-32s" in figure.inner_text()
    source, colours = page.evaluate(
        """() => { const figure = document.querySelector(".fcn-live"), classes = [...figure.querySelectorAll("li")];
             return [figure.querySelector("img").src, classes.map((each) => each.dataset.colour)]; }"""
    )
    shown = pixels(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
    legend = np.array([colour.split(",") for colour in colours]).astype(int)
    # A JPEG of masks of noise: of random colours, a tenth would be that near to one of the legend's.
    assert (np.abs(shown[:, :, None] - legend).max(axis=-1).min(axis=-1) <= 24).mean() > 0.8
    assert set(map(tuple, legend.tolist())) <= set(map(tuple, distinct_palette(11)))

    page.evaluate("fcnStopCamera()")  # as when its time is over
    page.wait_for_timeout(1500)
    last = figure.locator("img").get_attribute("src")
    page.wait_for_timeout(1000)
    assert figure.locator("img").get_attribute("src") == last


def test_a_camera_that_is_not_answered_stops(browser, server):
    page = browser.new_page(permissions=["camera"])  # one of its own: a refused request is an error in the console
    page.set_default_timeout(PATIENCE)
    page.goto(server)
    page.wait_for_selector(".fcn-panel")
    page.get_by_role("tab", name="Live").click()
    refused = []

    def refuse(route):
        refused.append(route)
        route.fulfill(status=503, body='{"detail": "Queue is full."}', content_type="application/json")

    page.route("**/queue/join*", refuse)
    page.locator("#fcn-camera").get_by_text("Click to Access Webcam").click()
    page.locator("#fcn-camera").get_by_role("button", name="Record").click()
    page.get_by_role("alert").filter(has_text="The camera was stopped").wait_for()
    page.wait_for_timeout(1000)
    assert len(refused) <= 3
    page.close()
