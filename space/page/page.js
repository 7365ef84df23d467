// Everything here acts on what is already in the page; nothing is asked of the server.

// Shows the address that the page is served at, which a server behind others doesn't know.
customElements.define(
  "fcn-address",
  class extends HTMLElement {
    connectedCallback() {
      this.textContent = (location.origin + location.pathname).replace(/\/+$/, "");
    }
  },
);

(() => {
  const pixels = new WeakMap();
  let pinned = null;

  const colourNames = () =>
    new Map([...document.querySelectorAll(".fcn-class")].map((b) => [b.dataset.colour, b.dataset.name]));

  // The decoded label layer of one panel, read once: RGBA bytes with the size of the image.
  function layer(image) {
    if (!pixels.has(image)) {
      if (!image.complete || !image.naturalWidth) return null;
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      pixels.set(image, context.getImageData(0, 0, canvas.width, canvas.height));
    }
    return pixels.get(image);
  }

  // Leave one class in the light, with its outline, in every panel; null shows all classes in colour.
  function show(name) {
    const button = name && document.querySelector(`.fcn-class[data-name="${CSS.escape(name)}"]`);
    document.querySelectorAll(".fcn-results tr[data-name]").forEach((row) => {
      row.classList.toggle("fcn-active", Boolean(button) && row.dataset.name === name);
    });
    document.querySelectorAll(".fcn-view").forEach((view) => {
      view.querySelector("canvas")?.remove();
      view.classList.toggle("fcn-filtered", Boolean(button));
      const source = button && layer(view.querySelector(".fcn-mask"));
      if (!source) return;
      const [red, green, blue] = button.dataset.colour.split(",").map(Number);
      const { width, height, data } = source;
      const inside = new Uint8Array(width * height);
      for (let p = 0, i = 0; p < inside.length; p++, i += 4) {
        inside[p] = data[i] === red && data[i + 1] === green && data[i + 2] === blue && data[i + 3] ? 1 : 0;
      }
      const shade = new ImageData(width, height);
      for (let p = 0; p < inside.length; p++) {
        const edge =
          (p % width && inside[p] !== inside[p - 1]) || (p >= width && inside[p] !== inside[p - width]);
        if (edge) shade.data.fill(255, 4 * p, 4 * p + 4);
        else shade.data[4 * p + 3] = inside[p] ? 0 : 205;
      }
      const canvas = document.createElement("canvas");
      canvas.width = width;
      canvas.height = height;
      canvas.getContext("2d").putImageData(shade, 0, 0);
      view.append(canvas);
    });
  }

  function pin(button) {
    pinned = pinned === button.dataset.name ? null : button.dataset.name;
    document.querySelectorAll(".fcn-class").forEach((other) => {
      other.setAttribute("aria-pressed", String(other.dataset.name === pinned));
    });
    show(pinned);
  }

  // Name what every network sees at the place that is pointed at in one of the panels.
  function probe(view, event) {
    const box = view.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const y = (event.clientY - box.top) / box.height;
    const names = colourNames();
    view.closest(".fcn-panels").querySelectorAll(".fcn-view").forEach((other) => {
      const source = layer(other.querySelector(".fcn-mask"));
      if (!source) return;
      const column = Math.min(source.width - 1, Math.max(0, Math.floor(x * source.width)));
      const row = Math.min(source.height - 1, Math.max(0, Math.floor(y * source.height)));
      const [red, green, blue, alpha] = source.data.slice(4 * (row * source.width + column));
      other.querySelector(".fcn-probe").textContent = alpha ? names.get(`${red},${green},${blue}`) : "unlabelled";
      other.style.setProperty("--x", `${x * 100}%`);
      other.style.setProperty("--y", `${y * 100}%`);
      other.classList.add("fcn-probed");
    });
  }

  const within = (event, selector) => event.target instanceof Element && event.target.closest(selector);

  document.addEventListener("pointerover", (event) => {
    const button = within(event, ".fcn-class");
    if (button) show(button.dataset.name);
  });
  document.addEventListener("pointerout", (event) => {
    if (within(event, ".fcn-class")) show(pinned);
    if (within(event, ".fcn-view")) {
      document.querySelectorAll(".fcn-probed").forEach((view) => view.classList.remove("fcn-probed"));
    }
  });
  document.addEventListener("focusin", (event) => {
    const button = within(event, ".fcn-class");
    if (button) show(button.dataset.name);
  });
  document.addEventListener("focusout", (event) => {
    if (within(event, ".fcn-class")) show(pinned);
  });
  document.addEventListener("click", (event) => {
    const button = within(event, ".fcn-class");
    if (button) pin(button);
  });
  document.addEventListener("pointermove", (event) => {
    const view = within(event, ".fcn-view");
    if (view) probe(view, event);
  });
})();
