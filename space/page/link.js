// What is shown stands in the page's address: kind, example, pixel, class and tab. A link to it is copied; a page that is
// opened with one shows it again. The server opens kind and example (links.py), the rest is done here.
(() => {
  const KEYS = ["kind", "example", "x", "y", "class", "tab"];
  const MILLISECONDS = 300;

  const given = new URLSearchParams(location.search);
  // A key that is there twice counts as not there.
  const asked = (key) => (given.getAll(key).length === 1 ? given.get(key) : null);
  // Whether the address is kept up to date: not before a link is reopened, or the visitor has done anything.
  let following = false;
  let answered = false;
  let compared = false;
  let reopened = false;
  let timer;

  const section = () => document.querySelector(".fcn-results");
  const tabButton = (id) => [...document.querySelectorAll('[role="tab"]')].find(({ dataset }) => dataset.tabId === id);

  function askedPixel() {
    const pixel = ["x", "y"].map(asked);
    if (!pixel.every((text) => /^[0-9]{1,6}$/.test(text ?? ""))) return null;
    const [x, y] = pixel.map(Number);
    return x < Number(section().dataset.width) && y < Number(section().dataset.height) ? [x, y] : null;
  }

  // Once what the link asks for is there: chooses its class, pixel and tab.
  function reopen() {
    if (!answered || !compared || reopened) return;
    const shown = section()?.dataset ?? {};
    if (["kind", "example"].some((key) => asked(key) !== null && asked(key) !== shown[key])) return;
    reopened = true;
    following ||= KEYS.some((key) => given.has(key));
    if (asked("class") !== null) fcn.pin(asked("class"));
    const pixel = askedPixel();
    if (pixel) fcn.keep(pixel);
    tabButton(asked("tab"))?.click();
    updateSoon();
  }

  // Called when the server has answered with kind and example.
  fcn.reopen = () => {
    answered = true;
    reopen();
  };

  function state() {
    const { kind = "", example = "" } = section()?.dataset ?? {};
    const tab = document.querySelector('[role="tab"][aria-selected="true"]')?.dataset.tabId;
    const fields = ["#fcn-x input", "#fcn-y input"].map((selector) => document.querySelector(selector)?.value);
    const pixel = tab === "why" ? fields : fcn.kept();
    // A pixel of a picture that is not in the link would be one of another picture.
    const [x, y] = (example && pixel) || [];
    return { kind, example, x, y, class: fcn.pinned() ?? "", tab: tab === "compare" ? "" : tab };
  }

  function link() {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(state())) if (value || value === 0) query.set(key, value);
    return `${location.origin}${location.pathname}?${query}`;
  }

  // What the address has besides, such as the theme, stays in it; but isn't in links, as it may be the visitor's alone.
  function update() {
    const address = new URL(link());
    for (const [key, value] of new URLSearchParams(location.search)) {
      if (!KEYS.includes(key)) address.searchParams.append(key, value);
    }
    address.hash = location.hash;
    if (address.href === location.href) return;
    history.replaceState(history.state, "", address);
    say("");
  }

  // Browsers allow a hundred changes within half a minute, which an arrow key that is held down would pass.
  function updateSoon() {
    clearTimeout(timer);
    if (following) timer = setTimeout(update, MILLISECONDS);
  }

  function say(text, address = "") {
    const said = document.querySelector("#fcn-link-said");
    const field = document.querySelector("#fcn-link-address");
    if (!said || !field) return;
    said.textContent = text;
    field.hidden = !address;
    field.value = address;
    if (address) field.select();
  }

  async function copy() {
    const { ready, byHand, own } = document.querySelector("#fcn-link-said").dataset;
    const limits = state().example ? "" : ` ${own}`;
    const address = link();
    update();
    try {
      await navigator.clipboard.writeText(address);
      say(ready + limits);
    } catch {
      // Browsers that don't know the visitor's leave, or pages without TLS.
      say(byHand + limits, address);
    }
  }

  document.addEventListener("click", (event) => fcn.within(event, "#fcn-link") && copy());
  for (const type of ["click", "keyup", "change"]) {
    document.addEventListener(type, (event) => {
      if (event.isTrusted) following = true;
      updateSoon();
    });
  }
  document.addEventListener("fcn:compared", () => {
    compared = true;
    reopen();
    updateSoon();
  });
})();
