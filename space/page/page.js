// Everything in these scripts acts on what is already in the page; the server is asked by the page's own buttons alone.

// What the scripts share; and `fcn.layer(image)`, `fcn.pin(name)` and `fcn.pinned()` in masks.js, `fcn.placeOf(...)` and
// `fcn.reveal(...)` in zoom.js, `fcn.keep(point)` and `fcn.kept()` in probe.js, `fcn.reopen()` in link.js.
const fcn = {
  // Of the page's languages the browser's, by the rule of Gradio, which translates labels; see texts.py.
  language: navigator.language.toLowerCase().startsWith("pt") ? "pt" : "en",
  // The path at the server of the picture of which the tabs that explain were last told.
  picture: undefined,
  // The innermost element of this kind in which an event took place, or null.
  within: (event, selector) => (event.target instanceof Element ? event.target.closest(selector) : null),
};

// Shows the address that the page is served at, which a server behind others doesn't know.
customElements.define(
  "fcn-address",
  class extends HTMLElement {
    connectedCallback() {
      this.textContent = (location.origin + location.pathname).replace(/\/+$/, "");
    }
  },
);

document.documentElement.lang = fcn.language;

// Names the example pictures after their files, brings masks of another picture into sight, and tells the other scripts
// of them: "fcn:compared", with whether they are of another picture than before.
(() => {
  let comparison = null;
  let picture = null;

  const EXAMPLE = { en: "Example", pt: "Exemplo" }[fcn.language];

  function nameExamples() {
    document.querySelectorAll("#fcn-examples .gallery-item:not([aria-label])").forEach((button) => {
      const file = decodeURIComponent(button.querySelector("img")?.src ?? "").split("/").pop();
      const name = file.replace(/\.\w+$/, "").replace(/^\d+-/, "").replaceAll("-", " ");
      if (name) button.setAttribute("aria-label", `${EXAMPLE}: ${name}`);
    });
  }

  function bringIntoSight(section) {
    const { top, height } = section.querySelector(".fcn-view").getBoundingClientRect();
    if (top >= 0 && top + height / 2 <= innerHeight) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    section.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
  }

  function look() {
    nameExamples();
    // Gradio changes what is there into what comes, so the element may be the same.
    const section = document.querySelector(".fcn-results");
    if (!section || section.dataset.comparison === comparison) return;
    comparison = section.dataset.comparison;
    const before = picture;
    picture = section.dataset.picture;
    const another = picture !== before;
    document.dispatchEvent(new CustomEvent("fcn:compared", { detail: { another } }));
    // Not when the page is opened: who reads from the top isn't to be moved.
    if (another && before !== null) bringIntoSight(section);
  }

  new MutationObserver(look).observe(document.documentElement, {
    childList: true,
    subtree: true,
    attributeFilter: ["data-comparison"],
  });
})();
