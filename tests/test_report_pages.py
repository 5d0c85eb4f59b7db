"""The pages as a person meets them, in a real browser: sound, play-head, keyboard, search, many samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import colour_scheme, contrast, needs_browser, open_browser
from PIL import Image
from report_runs import picture_and_sound, sweep, write_run

from images_that_speak.reports.commands import main

pytestmark = needs_browser
MANY = 10_000


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_errors(driver: Any) -> Iterator[None]:
    yield
    assert driver.get_log("browser") == []
    loaded = run(driver, "return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for number, weight in enumerate((0.6, 1.0)):
        write_run(root / f"audio_weight-{weight}+x#{number}", [
            {"image": "a cat", "audio": "happy baby music", "clip": 20 + number, "top1": True,
             "heard": "so happy maybe" if number else "happy baby music"},
            {"image": "two dogs", "audio": "blue ocean dream", "heard": "", "clip": -3.25, "top1": False},
            {"image": "a house", "audio": "seven silver apple", "heard": "seven apple", "clip": 7,
             "top1": False},
        ], {"steps": 8, "guidance": {"audio_weight": weight}}, {"guidance.audio_weight": weight})
    assert main(["gallery", str(root)]) == 0
    return root / "gallery.html"


def visit(driver: Any, page: Path, fragment: str = "") -> None:
    driver.get("about:blank")  # else another fragment of the same page would not load it anew
    driver.get(page.as_uri() + fragment)


def run(driver: Any, script: str, *arguments: Any) -> Any:
    return driver.execute_script(script, *arguments)


def until(driver: Any, condition: str) -> Any:
    """Wait until the JavaScript expression is true, and return it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 30, 0.03).until(lambda _: run(driver, f"return {condition}"))


def titles(driver: Any) -> list[str]:
    return run(driver, "return [...document.querySelectorAll('.card')].map((card) => "
                       "card.querySelector('.asked').firstChild.textContent + ' ' + "
                       "card.querySelector('.scores dd').textContent)")


def choose(driver: Any, select: str, value: str) -> None:
    """Choose an option as a person does; `select` is a JavaScript expression."""
    run(driver, f"const s = {select}; s.value = {value!r}; s.dispatchEvent(new Event('change'))")


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def test_the_play_head_is_where_the_sound_is(driver: Any, gallery: Path) -> None:
    visit(driver, gallery)
    until(driver, "[...document.images].slice(0, 3).every((image) => image.naturalWidth === 1024)")
    run(driver, "document.querySelectorAll('.play')[1].click()")
    until(driver, "document.querySelector('audio').currentTime > 0.4")
    # Both read right after the page has moved the play-head, however slow the machine.
    read = """const done = arguments[0]; requestAnimationFrame(() => setTimeout(() => {
        const audio = document.querySelector('audio'), card = document.querySelectorAll('.card')[1];
        const head = card.querySelector('.head').getBoundingClientRect();
        const frame = card.querySelector('.picture').getBoundingClientRect();
        done([audio.currentTime / audio.duration, (head.left + head.width / 2 - frame.left) / frame.width,
              audio.duration, getComputedStyle(card.querySelector('.head')).opacity]); }))"""
    first = driver.execute_async_script(read)
    until(driver, "document.querySelector('audio').currentTime > 1.0")
    second = driver.execute_async_script(read)
    for sounding, seen, seconds, opacity in (first, second):
        assert seconds == pytest.approx(10.24)
        assert seen == pytest.approx(sounding, abs=0.02)
        assert opacity == "1"
    assert second[1] > first[1] + 0.03
    # One sound at a time: another one's play-head comes, this one's goes.
    run(driver, "document.querySelectorAll('.play')[0].click()")
    until(driver, "document.querySelectorAll('.begun').length === 1 && "
                  "document.querySelectorAll('.card')[0].querySelector('.begun') !== null")
    assert run(driver, "return document.querySelectorAll('audio').length") == 1
    assert run(driver, "return [...document.querySelectorAll('.play')].slice(0, 3)"
                       ".map((button) => button.ariaLabel)") == ["Pause", "Play", "Play"]


def test_a_click_on_the_picture_plays_from_there(driver: Any, gallery: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    visit(driver, gallery)
    picture = driver.find_element("css selector", ".picture")
    quarter = picture.size["width"] / 4
    ActionChains(driver).move_to_element_with_offset(picture, quarter, 0).click().perform()
    until(driver, "document.querySelector('audio').played.length > 0")
    begun = run(driver, "return document.querySelector('audio').played.start(0)")
    assert begun == pytest.approx(7.68, abs=0.1)


def test_by_keyboard_alone(driver: Any, gallery: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    visit(driver, gallery)
    press(driver, "j")
    press(driver, "j")
    assert run(driver, "return document.activeElement.ariaPosInSet") == "2"
    assert run(driver, "return document.activeElement.ariaSetSize") == "6"
    press(driver, Keys.SPACE)
    until(driver, "document.querySelector('audio').currentTime > 0.05")
    press(driver, Keys.ESCAPE)
    assert run(driver, "return document.querySelector('audio').paused")
    press(driver, Keys.TAB)  # from the card into its picture
    assert run(driver, "return document.activeElement.className") == "seek"
    before = run(driver, "return Number(document.activeElement.value)")
    press(driver, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    after = run(driver, "return [Number(document.activeElement.value), "
                        "document.activeElement.getAttribute('aria-valuetext')]")
    assert after[0] == pytest.approx(before + 0.01, abs=0.006)
    assert after[1].endswith("of 10.2 seconds")
    press(driver, Keys.TAB)
    assert run(driver, "return document.activeElement.ariaLabel") == "Play"
    press(driver, "k")
    assert run(driver, "return document.activeElement.ariaPosInSet") == "1"
    press(driver, "/")
    press(driver, "dogs")
    until(driver, "document.querySelector('#count').textContent === '2 of 6 samples'")


def test_sorting_filtering_and_the_address(driver: Any, gallery: Path) -> None:
    visit(driver, gallery)
    cat, house, dogs = "a cat 0 %", "a house 33.3 %", "two dogs 100 %"
    worse = "a cat 100 %"  # so happy maybe: one word right, two wrong, one too many
    assert titles(driver) == [cat, dogs, house, worse, dogs, house]
    choose(driver, "document.querySelector('#sort')", "wer")
    assert titles(driver) == [cat, house, house, dogs, worse, dogs]
    run(driver, "document.querySelector('#direction').click()")
    assert titles(driver) == [dogs, worse, dogs, house, house, cat]
    labels = "[...document.querySelectorAll('#filters label')]"
    choose(driver, f"{labels}.find((label) => label.textContent.startsWith('audio_weight')).lastChild", "1")
    assert titles(driver) == [worse, dogs, house]
    address = driver.current_url
    visit(driver, gallery, "#" + address.partition("#")[2])
    assert titles(driver) == [worse, dogs, house]
    run(driver, "document.querySelector('#clear').click()")
    assert len(titles(driver)) == 6


@pytest.mark.parametrize(("query", "found"), [
    ("dogs", 2), ("silver", 2), ("wer<=34%", 3), ("wer=0", 1), ("guidance.audio_weight=0.6 wer>0", 2),
    ("audio_weight=1 clip>0", 2), ("image_prompt~house", 2), ('heard="happy baby music"', 1), ("clip<-3", 2),
    ("steps=8", 6), ("joint=yes", 1), ("heard~seven cat", 0),
])
def test_searching(driver: Any, gallery: Path, query: str, found: int) -> None:
    from urllib.parse import urlencode

    visit(driver, gallery, "#" + urlencode({"q": query}))
    assert len(titles(driver)) == found
    assert run(driver, "return document.querySelector('#none').hidden") == (found > 0)


def test_a_key_that_is_not_there_is_named(driver: Any, gallery: Path) -> None:
    visit(driver, gallery, "#q=audio_wieght%3D1")
    count = run(driver, "return document.querySelector('#count').textContent")
    assert "there is no key “audio_wieght”" in count


def test_pictures_give_way_to_spectrograms_and_colours(driver: Any, tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", [{"image": "a cat", "audio": "happy baby music"},
                                        {"image": "a dog", "audio": "blue ocean dream"}])
    first = sorted((root / "samples").iterdir())[0]
    Image.new("RGB", (1024, 256), (10, 90, 10)).save(first / "colour.png")
    assert main(["gallery", str(root)]) == 0
    visit(driver, root / "gallery.html")
    names = "return [...document.querySelectorAll('.picture img')].map((image) => image.src.split('/').pop())"
    assert run(driver, names) == ["image.png"] * 2
    for seen, expected in (("colour", ["colour.png", "image.png"]), ("spectrogram", ["spectrogram.png"] * 2)):
        run(driver, f"document.querySelector('[data-seen={seen}]').click()")
        assert run(driver, names) == expected and f"{seen}=1" in driver.current_url
        pressed = run(driver, "return [...document.querySelectorAll('[data-seen][aria-pressed=true]')]"
                              ".map((button) => button.dataset.seen)")
        assert pressed == [seen]
    run(driver, "document.querySelector('[data-seen=spectrogram]').click()")
    assert run(driver, names) == ["image.png"] * 2
    # Nobody is asked for colours that no sample has.
    (first / "colour.png").unlink()
    assert main(["gallery", str(root)]) == 0
    visit(driver, root / "gallery.html")
    assert run(driver, "return document.querySelector('[data-seen=colour]').hidden") is True


def test_wrong_words_are_marked_by_more_than_colour_and_said(driver: Any, gallery: Path) -> None:
    visit(driver, gallery, "#q=cat+audio_weight%3D1")
    assert run(driver, "return [...document.querySelectorAll('.card .word')].map((word) => "
                       "[word.classList[1], word.innerText.trim()])") == [
        ["inserted", "so"], ["right", "happy\nhappy"], ["substituted", "baby\nmaybe"],
        ["deleted", "music\n–"]]
    marked = [".inserted .h", ".substituted .h", ".right .h", ".deleted .a"]
    marks = run(driver, """return arguments[0].map((word) => {
        const style = getComputedStyle(document.querySelector(`.card ${word}`));
        return [style.textDecorationLine, style.textDecorationStyle]; })""", marked)
    assert marks == [["underline", "dotted"], ["underline", "wavy"], ["none", "solid"],
                     ["line-through", "solid"]]
    assert run(driver, "return document.querySelector('.card .unseen').textContent") == (
        "Asked: happy baby music. Heard: so happy maybe. "
        "Wrong: so heard besides; maybe for baby; music not heard.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_can_be_read(driver: Any, gallery: Path, scheme: str) -> None:
    colour_scheme(driver, scheme)
    visit(driver, gallery)
    paper = run(driver, "return getComputedStyle(document.documentElement).backgroundColor")
    assert (contrast(paper, "rgb(0, 0, 0)") > 10) == (scheme == "light")
    for selector in ("h1", ".summary", ".substituted .h", ".deleted .h", ".inserted .h", ".word .a",
                     ".settings", ".scores dt", "#count"):
        colour = run(driver, "return getComputedStyle(document.querySelector(arguments[0])).color", selector)
        assert contrast(paper, colour) >= 4.5, (scheme, selector)
    colour_scheme(driver, "light")


def test_everything_that_can_be_used_has_a_name(driver: Any, gallery: Path) -> None:
    visit(driver, gallery)
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            found.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert found["feed"] == ["Samples"]
    assert len(found["article"]) == len(found["slider"]) == 6
    for role in ("article", "slider", "button", "searchbox", "combobox", "image", "search"):
        assert all(found[role]), (role, found[role])


def test_an_embedded_sound_plays_without_its_folder(driver: Any, tmp_path: Path) -> None:
    source = write_run(tmp_path / "run", [{"image": "a cat", "audio": "blue", "heard": "blue"}])
    page = tmp_path / "one.html"
    assert main(["gallery", str(source), "--embed", "-o", str(page)]) == 0
    shutil.rmtree(source)
    visit(driver, page)
    until(driver, "document.images[0].naturalWidth === 1024")
    run(driver, "const seek = document.querySelector('.seek'); seek.value = 0.5;"
                "seek.dispatchEvent(new Event('input')); document.querySelector('.play').click()")
    # A slow machine plays an instant of the beginning before it knows how long the sound is.
    last = "const all = document.querySelector('audio').played, last = all.length - 1; "
    until(driver, f"(() => {{ {last} return last >= 0 && all.end(last) > 5.12 }})()")
    assert run(driver, last + "return all.start(last)") == pytest.approx(5.12, abs=0.1)
    assert run(driver, "return document.querySelector('audio').duration") == pytest.approx(10.24)


# --- the Pareto page

@pytest.fixture(scope="module")
def pareto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = sweep(tmp_path_factory.mktemp("sweep"))
    assert main(["pareto", str(root)]) == 0
    return root / "pareto.html"


def test_points_lie_where_their_figures_are(driver: Any, pareto: Path) -> None:
    visit(driver, pareto)
    marks = run(driver, "return [...document.querySelectorAll('a.point')].map((point) => "
                        "[...['cx', 'cy'].map((key) => "
                        "Number(point.querySelector('.mark').getAttribute(key))), "
                        "point.classList.contains('best')])")
    (ax, ay, a), (bx, by, b), (cx, cy, c) = marks  # WER 0, 2/3, 1; CLIP 5, 9, 7
    assert ax < cx < bx and ay > by > cy  # better is right and down
    assert (cx - ax) / (bx - ax) == pytest.approx(0.5, abs=0.01)
    assert (ay - by) / (by - cy) == pytest.approx(2, abs=0.02)
    assert (a, b, c) == (True, True, False)
    # On the front by more than colour: filled, and said in the table.
    told = run(driver, "return [...document.querySelectorAll('tbody tr')]"
                       ".map((row) => row.cells[3].innerText)")
    assert told == ["● on it", "● on it", "–"]


def test_a_point_tells_its_figures_and_opens_its_samples(driver: Any, pareto: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    visit(driver, pareto)
    press(driver, Keys.TAB, Keys.TAB)
    assert run(driver, "return document.activeElement.getAttribute('data-run')") == "1"
    assert "66.7 % [56.7, 76.7]" in run(driver, "return document.querySelector('#point').innerText")
    here = run(driver, "return [...document.querySelectorAll('tr.here')].map((row) => row.dataset.run)")
    assert here == ["1"]
    run(driver, "document.querySelector('[data-size=small]').click()")
    run(driver, "document.querySelector('a.point[data-run=\"1\"]').focus()")
    press(driver, Keys.ENTER)
    until(driver, "document.querySelector('#count').textContent === '4 of 12 samples'")
    assert "size=small" in driver.current_url and "run=1" in driver.current_url  # what was chosen stays
    assert run(driver, "return document.querySelector('#chosen').textContent") == (
        "Only the run audio_weight 0.6")
    until(driver, "document.querySelector('#samples').getBoundingClientRect().top < innerHeight / 2")
    assert run(driver, "return new Set([...document.querySelectorAll('.card .settings b')]"
                       ".map((value) => value.textContent)).size") == 2  # 0.6 and the seed


def test_the_table_sorts(driver: Any, pareto: Path) -> None:
    visit(driver, pareto)
    clip = "[...document.querySelectorAll('thead button')].find((button) => button.innerText === 'CLIP')"
    order = "return [...document.querySelectorAll('tbody tr')].map((row) => row.dataset.run)"
    run(driver, f"{clip}.click()")
    assert run(driver, order) == ["0", "2", "1"]
    run(driver, f"{clip}.click()")
    assert run(driver, order) == ["1", "2", "0"]
    assert run(driver, "return document.querySelectorAll('[aria-sort=descending]').length") == 1


# --- the comparison

def test_samples_side_by_side(driver: Any, pareto: Path) -> None:
    root = pareto.parent
    (root / "a/metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    assert main(["compare", str(root / "a"), str(root / "c"), "-o", str(root / "ac.html")]) == 0
    visit(driver, root / "ac.html")
    until(driver, "document.querySelectorAll('.row').length === 4")
    cells = run(driver, """return [...document.querySelectorAll('.row')].map((row) => [
        new Set([...row.querySelectorAll('.card')].map((card) => card.sample.id)).size,
        [...row.querySelectorAll('.label')].map((label) => label.textContent).join(''),
        row.querySelectorAll('.card')[0].getBoundingClientRect().top
          === row.querySelectorAll('.card')[1].getBoundingClientRect().top])""")
    assert cells == [[1, "AB", True]] * 4
    run(driver, "document.querySelectorAll('.play')[1].click()")
    until(driver, "document.querySelector('audio').currentTime > 0.05")
    assert "/c/samples/" in run(driver, "return document.querySelector('audio').src")
    # One run alone was trained: one curve, and it is told to who cannot see it.
    assert run(driver, "return document.querySelector('.small-chart svg').getAttribute('aria-label')") == (
        "loss over steps: A from 2 to 1")
    press(driver, "j", "j")
    assert run(driver, "return [document.activeElement.className, document.activeElement.ariaPosInSet]"
               ) == ["row", "2"]
    press(driver, "/", "dog")
    until(driver, "document.querySelector('#count').textContent === '2 of 4 samples'")


def test_no_page_is_wider_than_a_telephone(driver: Any, gallery: Path, pareto: Path) -> None:
    root = pareto.parent
    assert main(["compare", str(root / "a"), str(root / "b"), "-o", str(root / "ab.html")]) == 0
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for page in (gallery, pareto, root / "ab.html"):
        visit(driver, page)
        assert run(driver, "return document.documentElement.scrollWidth") <= 360, page.name
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_ten_thousand_samples(driver: Any, tmp_path: Path) -> None:
    # An evaluation of as many pictures, all the same file: folders of their own would only cost time.
    root = write_run(tmp_path / "many", task="evaluate")
    picture_and_sound(root / "picture")
    words = "happy baby music ocean silver apple village".split()
    rows = [f"{number},thing {number % 20},{' '.join(words[number % 4:number % 4 + 3])},"
            f"{' '.join(words[number % 3:number % 3 + 3])},{number % 4 / 3},{number % 97},"
            f"{root / 'picture/image.png'}" for number in range(MANY)]
    header = "name,image_prompt,audio_prompt,heard,wer,clip,file"
    (root / "samples.csv").write_text("\n".join([header, *rows]))
    assert main(["gallery", str(root)]) == 0
    visit(driver, root / "gallery.html")
    until(driver, "document.querySelectorAll('.card').length > 0")
    # As high as if all were there, so that the scroll bar says where one is.
    assert run(driver, "return document.documentElement.scrollHeight") > MANY * 200
    most = 0
    for place in (0.1, 0.5, 0.3, 1.0):
        run(driver, "scrollTo(0, document.documentElement.scrollHeight * arguments[0])", place)
        until(driver, "[...document.querySelectorAll('.card')].map((card) => card.getBoundingClientRect())"
                      ".some(({top, bottom}) => top < innerHeight && bottom > 0)")
        most = max(most, run(driver, "return document.querySelectorAll('*').length"))
    assert most < 6000
    until(driver, "(scrollTo(0, 1e9), "
                  "[...document.querySelectorAll('.card')].at(-1).ariaPosInSet === '10000')")
    # Sorted by CLIP, best first: the largest of number % 97 stands on top, and the rest is still not there.
    choose(driver, "document.querySelector('#sort')", "clip")
    run(driver, "scrollTo(0, 0)")
    until(driver, "document.querySelector('.card .scores div:nth-child(2) dd')?.textContent === '96'")
    assert run(driver, "return document.querySelectorAll('*').length") < 6000
