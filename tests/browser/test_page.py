"""The page in a real browser: unfold, search, click, slide; nothing lies on anything else."""

import json

import pytest
from drawings import Area, overlaps

from lucid.ir.text import parse_graph

AREAS = """
const areas = (selector, name) => [...document.querySelectorAll(`#camera ${selector}`)].map((e) => {
  const r = e.getBoundingClientRect();
  return [name(e), r.left, r.top, r.right, r.bottom];
});
return {
  boxes: areas(".box > .body", (e) => e.parentNode.dataset.id || e.parentNode.dataset.scope),
  labels: areas("text", (e) => e.textContent),
  frames: areas(".frame", (e) => e.dataset.frame),
};
"""
SMALL = """
graph small(%x: f32[N,4,8,8]) -> f32[N,4,8,8] {
  param @a.w: f32[4,4,3,3]
  %c = conv2d(%x, @a.w) {padding=(1,1,1,1)} : f32[N,4,8,8] at "block.a"
  %s = add(%c, %x) : f32[N,4,8,8] at "block"
  %r = relu(%s) : f32[N,4,8,8] at "block.relu"
  return %r
}
"""


class Page:
    """A page, and what a user does with it."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        (found,) = self.find(selector)
        return found

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def click(self, selector):
        """Where the element is drawn, as the mouse does it."""
        self.script(
            "const e = document.querySelector(arguments[0]), r = e.getBoundingClientRect();"
            "const [clientX, clientY] = [r.left + r.width / 2, r.top + r.height / 2];"
            "const at = {bubbles: true, clientX, clientY};"
            "for (const kind of ['pointerdown', 'pointerup'])"
            "  e.dispatchEvent(new PointerEvent(kind, at));",
            selector,
        )

    def type(self, selector, text):
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def slide(self, number):
        self.script(
            "const s = document.getElementById('slider'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input', {bubbles: true}));",
            number,
        )

    def check(self):
        """No boxes, no labels on each other, frames around what is theirs, no errors."""
        found = {k: [Area(*v) for v in areas] for k, areas in self.script(AREAS).items()}
        assert found["boxes"]
        assert overlaps(found["boxes"]) == []
        labels = [a for a in found["labels"] if a.name.strip()]
        assert overlaps([_core(a) for a in labels]) == []
        for frame in found["frames"]:
            for other in (*found["boxes"], *found["frames"], *map(_core, labels)):
                assert frame.holds(other) or other.holds(frame) or not frame.overlaps(other)
        assert self.browser.get_log("browser") == []
        return found


def _core(area):
    """A label without the room that fonts keep above and below their letters."""
    height = area.bottom - area.top
    return area._replace(top=area.top + 0.18 * height, bottom=area.bottom - 0.18 * height)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "p.json"
    rows = [{"origin": f"layer{i}.0.conv1", "ms": i / 8} for i in range(1, 5)]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory, profile):
    """The page of a network, as the command writes it."""
    from typer.testing import CliRunner

    from lucid.cli import command_line

    path = tmp_path_factory.mktemp("page") / "g.html"
    arguments = ["viz", "resnest_14", "--size", "64", "--profile", str(profile), "-o", str(path)]
    result = CliRunner().invoke(command_line(), arguments)
    assert result.exit_code == 0, result.stderr
    return path


@pytest.fixture
def page(browser, written):
    return Page(browser, written)


def names(found):
    return {a.name for a in found["boxes"]}


def test_unfold_and_fold(page):
    first = page.check()
    assert "layer2.0" in names(first)
    page.click("[data-scope='layer2.0']")
    unfolded = page.check()
    assert "layer2.0.conv2" in names(unfolded)
    assert "layer2.0" in {f.name for f in unfolded["frames"]}
    page.click("[data-scope='layer2.0.conv2']")
    assert "sum_3" in names(page.check())
    page.click(".fold[data-scope='layer2.0']")
    assert names(page.check()) == names(first)


def test_what_is_clicked_stays_in_its_place(page):
    where = (
        "const r = document.querySelector(\"[data-scope='layer3.0']\").getBoundingClientRect();"
        "return [r.left, r.top]"
    )
    before = page.script(where)
    page.click("[data-scope='layer3.0']")
    assert page.script(where) == pytest.approx(before, abs=8)


def test_unfold_all_at_every_stage(page):
    for number in range(len(page.find("#ticks button"))):
        page.slide(number)
        page.one("#unfold").click()
        page.check()


def test_search_finds_inside_folded_modules(page):
    page.type("#search", "layer4.0 split_attention")
    (found,) = page.find("#results a")
    assert "layer4.0.conv2" in found.text
    found.click()
    page.check()
    selected = page.one("#camera .selected")
    assert selected.get_attribute("data-id") == "sum_7"
    inside = "const r = arguments[0].getBoundingClientRect(), m = canvas.getBoundingClientRect();"
    inside += "return r.top > m.top && r.bottom < m.bottom && r.left > m.left && r.right < m.right"
    assert page.script(inside, selected)
    page.type("#search", "no such thing")
    assert page.one("#results").text == "nothing found"


def test_search_by_keyboard(page):
    page.one("#canvas").send_keys("/")
    page.browser.switch_to.active_element.send_keys("layer1.0.conv3 conv2d\n")
    assert page.find("#camera .selected")


def test_click_tells_what_a_node_is_made_of(page):
    page.click("[data-scope='layer1.0']")
    page.click("[data-scope='layer1.0.conv2']")
    page.click("[data-id='sum_1']")
    text = page.one("#details").text
    for part in ("split_attention", "layer1.0.conv2", "made of", "softmax", "fc1", "radix=2"):
        assert part in text
    assert len(page.find("#camera .edge.near")) >= 2
    page.find("#details a")[0].click()
    assert page.one("#camera .selected").get_attribute("data-id") == "relu_4"
    page.one(".close").click()
    assert not page.one("#details").is_displayed()


def test_slide_through_the_passes(page):
    page.slide(0)
    assert not page.find(".box.removed, .box.added, .box.changed")
    ticks = [t.text for t in page.find("#ticks button")]
    assert ticks[0] == "captured"
    assert ticks[-1] == "fused"
    page.slide(ticks.index("fold-batch-norm"))
    assert "removed" in page.one("#stage-note").text
    page.click("[data-scope='layer1.0']")
    assert page.find(".box.removed")
    assert page.find(".box.changed")
    page.check()
    page.slide(len(ticks) - 1)
    assert not page.find(".box.removed, .box.added, .box.changed")


def test_fit_shows_everything(page):
    """Whatever is unfolded; and at a laptop's size what is seen at first is legible."""
    inside = (
        "const m = canvas.getBoundingClientRect(), l = legend.getBoundingClientRect();"
        "const r = camera.getBoundingClientRect();"
        "return [r.left >= m.left, r.right <= m.right, r.top >= m.top, r.bottom <= l.top + 1]"
    )
    page.browser.set_window_size(1366, 768)
    page.script("window.dispatchEvent(new Event('resize'))")
    smallest = "return Math.min(...[...camera.querySelectorAll('text')]"
    smallest += ".map((t) => parseFloat(getComputedStyle(t).fontSize) * view.scale))"
    assert page.script(smallest) >= 11
    for button in ("#fold", "#unfold"):
        page.one(button).click()
        page.one("#fit").click()
        assert all(page.script(inside))
    page.browser.set_window_size(1280, 860)


def test_the_page_opens_at_a_depth(browser, tmp_path):
    import lucid
    from lucid.view import Stage, page, picture

    drawn = picture(lucid.trace(lucid.models.resnest_14(), (1, 3, 64, 64)))
    path = tmp_path / "deep.html"
    for depth, seen in ((1, "layer1.0"), (2, "layer1.0.conv2"), (9, "softmax")):
        path.write_text(page([Stage("captured", drawn)], depth=depth), encoding="utf-8")
        opened = Page(browser, path).check()
        assert any(name.startswith(seen) for name in names(opened))


def test_keys_move_and_zoom(page):
    def view():
        return page.script("return [view.x, view.y, view.scale]")

    start = view()
    page.one("#canvas").send_keys("+")
    assert view()[2] > start[2]
    for key, axis in (("\ue012", 0), ("\ue013", 1)):  # left, up
        before = view()
        page.one("#canvas").send_keys(key)
        assert view()[axis] > before[axis]
    page.one("#canvas").send_keys("0")
    fitted = view()
    assert fitted[2] <= start[2]
    page.one("#fit").click()
    assert view() == pytest.approx(fitted)
    page.one("#canvas").send_keys("[")
    assert "drop-dead-parameters" in page.one("#stage-note").text
    page.one("#canvas").send_keys("?")
    assert "unfold all" in page.one("#help").text


def test_the_mouse_drags_and_zooms(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    before = page.script("return [view.x, view.y, view.scale]")
    canvas = page.one("#canvas")
    ActionChains(page.browser).drag_and_drop_by_offset(canvas, 60, 40).perform()
    after = page.script("return [view.x, view.y, view.scale]")
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((60, 40), abs=2)
    wheel = ActionChains(page.browser).scroll_from_origin(
        ScrollOrigin.from_element(canvas), 0, -200
    )
    wheel.perform()
    assert page.script("return view.scale") > after[2]


def test_colour_by_time(page):
    page.script(
        "const s = document.getElementById('colour'); s.value = 'time';"
        "s.dispatchEvent(new Event('change'));"
    )
    slowest = page.one("[data-scope='layer4.0']")
    assert "--heat:100%" in slowest.get_attribute("style").replace(" ", "")
    assert "0.5 ms" in slowest.get_attribute("textContent")
    page.check()


def test_the_plan_of_memory(page):
    page.one("#memory-button").click()
    assert "arena" in page.one("#memory").text
    buffers = page.find("#memory .buffer")
    assert len(buffers) > 20
    block = page.one("#memory [data-buffer='relu_3']")
    page.script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", block)
    assert page.one("#camera .selected").get_attribute("data-id") == "relu_3"
    assert page.find("#memory .buffer.selected")
    page.check()


def test_a_graph_of_a_notebook(browser, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<body>{parse_graph(SMALL)._repr_html_()}</body>", encoding="utf-8")
    browser.get(path.as_uri())
    browser.switch_to.frame(0)
    assert len(browser.find_elements("css selector", "#camera .box")) == 5
    browser.switch_to.default_content()
    assert browser.get_log("browser") == []


def test_the_largest_network_answers_at_once(browser, tmp_path):
    """Opening, unfolding and searching; bounds wide enough for a busy machine."""
    import lucid
    from lucid.view import to_html

    path = tmp_path / "large.html"
    path.write_text(to_html(lucid.trace(lucid.models.resnest_269(), (1, 3, 64, 64))))
    page = Page(browser, path)
    took = page.script(
        "const time = (act) => { const t = performance.now(); act();"
        "  camera.getBoundingClientRect(); return performance.now() - t; };"
        "const run = [...paths.keys()].find((p) => p.startsWith('layer3.1–'));"
        "document.getElementById('search').value = 'layer3.20 softmax';"
        "return [time(() => toggle('layer3')), time(() => toggle(run)), time(search),"
        "  time(() => activate(document.querySelector('#results a')))]"
    )
    assert max(took) < 600
    assert page.one("#camera .selected")
    page.check()
