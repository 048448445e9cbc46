"""The page in a real browser, from a real S3 server with nothing between them: what a person does with it.

A bucket whose policy lets anybody read `interpret/` is all that is served from; the page's folder is a sub-path there.
"""

from __future__ import annotations

import gzip
import http.server
import json
import os
import threading
from functools import partial
from pathlib import Path

import pytest

import browser as browsers
from kubesae.browse import write_single
from kubesae.browse.page import write_page
from kubesae.ledger import keys
from kubesae.store import open_store
from paged import HOSTILE, SAE, publish, serving, write_paged

pytestmark = pytest.mark.s3
SHOWN = "document.querySelector('.context') !== null"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Give a browser, or skip, saying why there is none; KUBESAE_REQUIRE_BROWSER=1 makes that a failure."""
    if browsers.program() is None:
        reason = "there is no Chromium: `tools/browser` installs it on Debian as root; KUBESAE_BROWSER may name one"
        if os.environ.get("KUBESAE_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with browsers.Browser.start(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a store in a folder, with a page."""
    store = open_store(str(tmp_path_factory.mktemp("paged") / "store"))
    write_page(store, store, write_paged(store, 300))
    return store


@pytest.fixture(scope="module")
def url(s3_server, folder):
    """Give the URL of the page in a bucket whose `interpret/` anybody may read."""
    return publish(s3_server, Path(folder.url))


@pytest.fixture
def opened(browser, url):
    """Give what opens the page at a route; at the end, no tab has complained or asked another origin."""
    tabs = []

    def open_at(route="", **how):
        tabs.append(browser.open(url + route, **how))
        return tabs[-1]

    yield open_at
    origin = url.partition("/test-")[0]
    for tab in tabs:
        assert tab.complaints == []
        asked = [request for request in tab.requests if not request.startswith(("data:", "about:"))]
        assert asked
        assert {request.partition("/test-")[0] for request in asked} == {origin}


def test_the_overview_shows_what_it_is(opened):
    tab = opened()
    assert tab.text("h1") == SAE
    assert "299\nfeatures active" in tab.text(".tiles")
    assert tab.js("document.querySelectorAll('.charts svg').length") == 4
    hashes = tab.texts("dd.hash")
    assert {len(one) for one in hashes} == {64}
    assert tab.js("document.title") == f"Overview · {SAE}"


def test_search_narrows_the_table_and_stays_in_the_link(opened):
    tab = opened()
    tab.press("/")
    tab.type("the")
    tab.wait("location.hash.includes('q=the')")
    tab.wait("document.querySelectorAll('[role=gridcell]').length > 0")
    labels = tab.texts(".row:not(.head)")
    assert labels
    assert all("the" in one.lower() for one in labels)
    tab.press("Enter")
    assert tab.js("document.activeElement.getAttribute('role')") == "grid"
    tab.press("j", "Enter")
    tab.wait(SHOWN)
    tab.press("Escape")
    tab.wait("location.hash.startsWith('#/features?q=the')")
    tab.wait("document.getElementById('query').value === 'the'")


def test_a_number_is_searched_for_too(opened):
    tab = opened("#/features")
    tab.press("/")
    tab.type("#123")
    tab.press("Enter")
    tab.wait("location.hash === '#/feature/123'")


def test_columns_sort(opened):
    tab = opened("#/features?sort=max&dir=asc")
    values = [float(row.split("\n")[5]) for row in tab.texts(".row:not(.head)")]
    assert values == sorted(values)
    assert len(values) > 10
    tab.click(".head [aria-sort=ascending] button")
    tab.wait("location.hash.includes('dir=desc')")
    values = [float(row.split("\n")[5]) for row in tab.texts(".row:not(.head)")]
    assert values == sorted(values, reverse=True)
    assert tab.text(".head [aria-sort=descending]").startswith("Max")
    assert tab.js("document.activeElement.parentElement.getAttribute('aria-sort')") == "descending"


def test_only_rows_in_sight_are_there_and_all_can_be_reached(opened):
    tab = opened("#/features?sort=feature&dir=asc")
    assert len(tab.texts(".row:not(.head)")) < 60
    tab.press("End")
    tab.wait("document.querySelector('[aria-selected=true] a')?.textContent === '299'")
    assert tab.js("document.querySelector('[role=grid]').getAttribute('aria-rowcount')") == "300"
    tab.press("Home", "ArrowDown", "j", "k")
    tab.wait("document.querySelector('[aria-selected=true] a')?.textContent === '1'")


def test_a_kind_can_be_chosen_and_dead_ones_be_shown(opened):
    tab = opened("#/features?kind=bigram")
    assert tab.text(".tools output").startswith("75 of 300")
    tab.js("document.querySelector('.tools input').click()")
    tab.wait("location.hash.includes('dead=1')")
    tab.go(tab.js("location.href").replace("kind=bigram", "kind=dead"))
    tab.wait("document.querySelector('.tools output').innerText.startsWith('1 of 300')")


def test_a_feature_opens_and_its_deciles_change(opened):
    tab = opened("#/feature/8")
    assert tab.text("h1").startswith("Feature 8: token '")
    top = tab.texts(".context .value")
    assert [float(one) for one in top] == sorted((float(one) for one in top), reverse=True)
    tab.press("]")
    tab.wait("location.hash === '#/feature/8?group=decile-10'")
    tab.press("]")
    assert tab.text("[aria-pressed=true]") == "9"
    tab.press("[", "[")
    assert tab.text("[aria-pressed=true]") == "Top"
    tab.click("[data-group=random]")
    tab.wait("location.hash === '#/feature/8?group=random'")
    assert len(tab.texts(".context")) == 10
    charts = tab.js("[...document.querySelectorAll('.feature svg')].map((one) => one.getAttribute('aria-label'))")
    assert charts == ["Activations", "By place in the context"]
    assert len(tab.texts(".related li")) == 20
    tab.wait("document.querySelector('.related .name').innerText !== ''")  # their labels follow


def test_a_link_to_a_decile_opens_it(opened):
    tab = opened("#/feature/8?group=decile-3")
    assert tab.text("[aria-pressed=true]") == "3"
    assert tab.js("location.hash") == "#/feature/8?group=decile-3"
    assert len(tab.texts(".context")) == 2


def test_next_and_previous_follow_the_table(opened):
    tab = opened("#/feature/8")
    tab.press("n")
    tab.wait("document.querySelector('h1').innerText.startsWith('Feature 9')")
    tab.press("p", "p")
    tab.wait("document.querySelector('h1').innerText.startsWith('Feature 7')")
    tab.go(tab.js("location.href").partition("#")[0] + "#/features?sort=max&dir=desc")
    tab.wait("document.querySelectorAll('.row a').length > 5")
    first = tab.texts(".row:not(.head) a")[:3]
    tab.press("Enter")
    tab.wait(f"document.querySelector('h1')?.innerText.startsWith('Feature {first[0]}')")
    tab.press("n")
    tab.wait(f"document.querySelector('h1').innerText.startsWith('Feature {first[1]}')")


def test_pointing_at_a_token_shows_its_activation(opened):
    tab = opened("#/feature/8")
    tab.point(".token[data-value]")
    tab.wait("!document.getElementById('tip').hidden")
    token, value = tab.text("#tip").rsplit(maxsplit=1)
    assert float(value) > 0
    assert token


def test_text_of_a_corpus_never_becomes_markup(opened):
    tab = opened("#/feature/0")
    assert HOSTILE in tab.text("h1")
    assert HOSTILE in tab.text(".contexts")
    tab.go(tab.js("location.href").partition("#")[0] + "#/features?q=onerror")
    tab.wait("document.querySelectorAll('.row:not(.head)').length in {1: 1, 2: 2, 3: 3}")
    assert tab.js("document.querySelectorAll('img, script:not([type])').length") == 0


def test_bytes_of_a_character_are_shown_as_it_and_space_is_seen(opened):
    tab = opened("#/feature/1")
    text = tab.text(".contexts")
    assert "🙂" in text
    assert "\\xf0" not in text
    assert "⏎" in text
    assert "⇥" in text


def test_two_populations_are_compared(opened, folder):
    table = json.loads(gzip.decompress(folder.read(keys.page_file(SAE, "table.json.gz"))))
    often = {one["name"]: [(count + 0.5) / (one["rows"] + 1) for count in one["count"]] for one in table["populations"]}
    live = [i for i, count in enumerate(table["count"]) if count]
    expected = sorted((often["words"][i] / often["code"][i] for i in live), reverse=True)
    tab = opened("#/compare?a=words&b=code")
    ratios = [float(row.split("\n")[4]) for row in tab.texts(".row:not(.head)")]
    assert ratios == pytest.approx(expected[: len(ratios)], rel=0.01)
    assert tab.js("document.querySelector('canvas').width") > 300
    tab.js("[...document.querySelectorAll('.tools button')].find((one) => one.innerText === 'swap').click()")
    tab.wait("location.hash.includes('a=code') && location.hash.includes('b=words')")
    swapped = [float(row.split("\n")[4]) for row in tab.texts(".row:not(.head)")]
    assert swapped == pytest.approx([1 / ratio for ratio in expected[::-1]][: len(swapped)], rel=0.01)
    tab.press("Enter")
    tab.wait(SHOWN)
    tab.press("Escape")
    tab.wait("location.hash.startsWith('#/compare?a=code')")


def test_what_was_used_keeps_the_focus(opened):
    """Who changes a setting by keyboard goes on from it: the next key is not taken for another place."""
    focused = "document.activeElement.getAttribute('name')"
    tab = opened("#/compare?a=words&b=code")
    for name, key in (("swap", "Enter"), ("swap", "Enter"), ("sort-mean-a", "Enter"), ("sort-mean-a", "Enter")):
        before = tab.js("location.hash")
        tab.js(f"document.querySelector('[name={name}]').focus()")
        tab.press(key)
        tab.wait(f"location.hash !== {json.dumps(before)}")
        assert tab.js("location.hash").startswith("#/compare")
        assert tab.js(focused) == name
    tab = opened("#/features")
    tab.js("document.querySelector('[name=kind]').focus()")
    for _ in range(2):
        before = tab.js("location.hash")
        tab.press("ArrowDown")
        tab.wait(f"location.hash !== {json.dumps(before)}")
        assert tab.js(focused) == "kind"


def test_the_plot_follows_the_colours_after_a_change(opened):
    tab = opened("#/compare?a=words&b=code")
    tab.click("[name=swap]")
    tab.wait("location.hash.includes('a=code')")
    drawn = "document.querySelector('canvas').toDataURL()"
    tab.wait(f"{drawn}.length > 5000")
    before = tab.js(drawn)
    tab.press("d")
    tab.wait(f"{drawn} !== {json.dumps(before)}")
    assert tab.js("document.documentElement.dataset.theme") == "dark"
    tab.js("localStorage.clear()")


def test_a_view_that_comes_late_leaves_the_address_alone(browser, folder, s3_server):
    tab = browser.open(publish(s3_server, Path(folder.url)))
    tab.js("addEventListener('hashchange', () => { location.hash = '#/'; }, { once: true })")
    tab.js("location.hash = '#/features?q=the'")
    tab.wait("performance.getEntriesByType('resource').some(({ name }) => name.endsWith('table.json.gz'))")
    tab.js("new Promise((done) => setTimeout(done, 300))")  # what comes late has come
    assert tab.js("location.hash") == "#/"


def test_a_page_that_was_written_anew_meanwhile_says_so(browser, folder, s3_server, tmp_path):
    store = open_store(str(tmp_path / "copy"))
    for key in folder.list("interpret/"):
        store.put(key, folder.read(key))
    with serving(store) as server:
        tab = browser.open(server.url)
        overview = json.loads(store.read(keys.page_file(SAE, "overview.json")))
        table = json.loads(gzip.decompress(store.read(keys.page_file(SAE, "table.json.gz"))))
        changed = gzip.compress(json.dumps(table | {"made_from": overview["made_from"][::-1]}).encode())
        store.put(keys.page_file(SAE, "table.json.gz"), changed)
        tab.js("location.hash = '#/features'")
        tab.wait("document.querySelector('main [role=alert]')")
        assert tab.text("main [role=alert]") == "This page was written anew while it was open. Reload it."


def test_colours_follow_the_system_until_they_are_chosen(opened):
    assert opened().js("document.documentElement.dataset.theme") == "light"
    tab = opened(dark=True)
    assert tab.js("document.documentElement.dataset.theme") == "dark"
    tab.press("d")
    assert tab.js("document.documentElement.dataset.theme") == "light"
    tab.go(tab.js("location.href") + "?x")
    assert tab.js("document.documentElement.dataset.theme") == "light"
    tab.js("localStorage.clear()")


def test_keys_are_listed(opened):
    tab = opened()
    tab.press("?")
    tab.wait("document.getElementById('help').open")
    assert "next and previous feature" in tab.text("#help")
    tab.press("Escape")
    tab.wait("!document.getElementById('help').open")


def test_reasoning_pages_are_linked(opened, url, s3_server):
    tab = opened("#/reasoning")
    assert "Nothing yet" in tab.text("main")
    bucket, _, key = url.removeprefix(f"{s3_server.endpoint}/").partition("/")
    key = key.replace("index.html", "page/reasoning.json")
    listed = [
        {"name": "gsm8k", "title": "gsm8k: 20 problems", "path": f"reason/{SAE}/gsm8k/index.html", "problems": 20},
        {"name": "bad", "title": "<b>bad</b>", "path": "javascript:alert(1)", "problems": 1, "correct": None},
    ]
    listed[0] |= {"correct": 7, "survived": 2}
    s3_server.client.put_object(Bucket=bucket, Key=key, Body=json.dumps(listed).encode())
    tab = opened("#/reasoning")
    assert tab.texts("main li") == [
        "gsm8k: 20 problems · 7 of 20 answers right · 2 features survived every test",
        "<b>bad</b>",
    ]
    links = tab.js("[...document.querySelectorAll('main a')].map((one) => one.href)")
    assert links == [f"{url.partition('interpret/')[0]}reason/{SAE}/gsm8k/index.html"]
    s3_server.client.put_object(Bucket=bucket, Key=key, Body=b"[]")


def test_what_is_not_there_is_said(opened):
    assert "There is no feature 999" in opened("#/feature/999").text("main [role=alert]")
    assert "There is no view nowhere" in opened("#/nowhere").text("main [role=alert]")
    assert opened("#/features?q=zzzzzz").text("[role=status]").startswith("No feature is called so")


def test_a_feature_is_read_by_range(opened, s3_server):
    """Not the whole file: of all bytes of the features, a hundredth or so crosses the network."""
    tab = opened("#/feature/250")
    sizes = tab.js(
        "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('.bin'))"
        ".map((one) => one.encodedBodySize)"
    )
    assert len(sizes) == 1
    assert 500 < sizes[0] < 9000


class NoRanges(http.server.SimpleHTTPRequestHandler):
    """Python's own file server: it answers a range with everything."""

    def log_message(self, *_):
        pass


def test_a_server_without_ranges_will_do(browser, folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(NoRanges, directory=folder.url))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        tab = browser.open(f"http://127.0.0.1:{server.server_port}/interpret/{SAE}/index.html#/feature/8")
        tab.press("n")
        tab.wait("document.querySelector('h1').innerText.startsWith('Feature 9')")
        assert len([request for request in tab.requests if request.endswith(".bin")]) == 1
        assert tab.complaints == []
    finally:
        server.shutdown()
        server.server_close()


def test_one_file_opens_without_a_server(browser, folder, tmp_path):
    path = tmp_path / "few.html"
    write_single(folder, SAE, path, [0, 8, 40])
    tab = browser.open(f"{path.as_uri()}#/feature/8")
    tab.wait(SHOWN)
    tab.press("n")
    tab.wait("document.querySelector('h1').innerText.startsWith('Feature 40')")
    tab.go(f"{path.as_uri()}#/features")
    tab.wait("document.querySelector('.tools output')?.innerText === '3 of 3 features'")
    tab.go(f"{path.as_uri()}#/feature/9")
    tab.wait("document.querySelector('[role=alert]')?.innerText.includes('not in this file')")
    assert tab.complaints == []
    assert all(request.startswith(("file:", "data:")) for request in tab.requests)


def test_a_page_that_is_opened_as_a_file_says_how_to_open_it(browser, folder):
    tab = browser.open((Path(folder.url) / keys.page(SAE)).as_uri())
    assert "`kubesae page`" in tab.text("main [role=alert]")
    assert tab.complaints == []


def test_what_may_not_be_read_is_said(browser, folder, s3_server):
    url = publish(s3_server, Path(folder.url), only="index.html")
    tab = browser.open(f"{url}#/feature/1")
    assert "403" in tab.text("main [role=alert]")
    assert "private bucket" in tab.text("main [role=alert]")


def test_names_in_the_bucket_are_those_of_the_contract(folder):
    found = {key.removeprefix(keys.interpretation(SAE, "")) for key in folder.list(f"interpret/{SAE}/")}
    assert {"index.html", "page/overview.json", "page/table.json.gz", "page/reasoning.json"} < found
